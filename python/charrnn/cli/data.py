"""``charrnn data``: corpora that can be had, and getting them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from charrnn.data import Corpus, download, path_of, read_catalogue
from charrnn.data.download import Progress
from charrnn.errors import ConfigError, DataError

BUILT_IN = {
    "pydoc-topics": "0.5 MB of help from Python's own documentation; comes with Python",
    "python-stdlib": "some 12 MB of Python, its standard library; comes with Python",
}


@click.group(
    epilog="""\b
    Examples:
      charrnn data list
      charrnn data get tiny-shakespeare
      charrnn train data:tiny-shakespeare --out runs/shakespeare --preset quick
    """
)
@click.option(
    "--catalogue",
    type=click.Path(path_type=Path),
    metavar="FILE.toml",
    help="Corpora of your own in place of charrnn's.",
)
@click.pass_context
def data(context: click.Context, catalogue: Path | None) -> None:
    """List, describe and fetch public corpora."""
    context.obj = catalogue


@data.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def list_(catalogue: Path | None, as_json: bool) -> None:
    """List the corpora that get knows, and those that come with Python."""
    corpora = read_catalogue(catalogue)
    if as_json:
        listed = [
            {**asdict(corpus), "is_fetched": path_of(name).exists()} for name, corpus in corpora.items()
        ]
        built_in = [{"name": name, "about": about, "is_fetched": True} for name, about in BUILT_IN.items()]
        click.echo(json.dumps([*listed, *built_in], indent=2))
        return
    for name, corpus in corpora.items():
        fetched = "; fetched" if path_of(name).exists() else ""
        click.echo(f"{name:<18}{_size(corpus.num_bytes):>9}  {corpus.about}{fetched}")
    for name, about in BUILT_IN.items():
        click.echo(f"{name:<18}{'':>9}  {about}: charrnn train {name}")


@data.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def info(catalogue: Path | None, name: str, as_json: bool) -> None:
    """Tell the address, size, hashes and licence of the corpus NAME."""
    corpus = _find(catalogue, name)
    if as_json:
        click.echo(json.dumps(asdict(corpus), indent=2))
        return
    for label, value in _rows(corpus):
        click.echo(f"{label:<10}{value}")


@data.command()
@click.argument("name")
@click.option(
    "--out", type=click.Path(path_type=Path), help="The file to write.  [default: where data:NAME is found]"
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@click.pass_obj
def get(catalogue: Path | None, name: str, out: Path | None, force: bool) -> None:
    """Fetch the corpus NAME, and go on where an earlier try broke off.

    It is then data:NAME to every command that takes a text, unless --out puts it elsewhere. It lies in the
    folder that CHARRNN_DATA names, or else in charrnn in your cache.
    """
    corpus, path = _find(catalogue, name), out or path_of(name)
    if path.exists() and not force:
        raise ConfigError(f"{path} exists: give another --out, or --force to replace it")
    if out is None:
        _make_folder(path.parent)
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is no folder: make it, or give another --out")
    with _shown(corpus) as progress:
        digest = download(corpus, path, progress=progress)
    known = (corpus.member.expected if corpus.member else corpus.expected).is_known
    checked = "as expected" if known or corpus.expected.is_known else "which nothing is known to compare with"
    click.echo(f"{path}: {path.stat().st_size:,} bytes, sha256 {digest}, {checked}", err=True)
    click.echo(f"licence: {corpus.licence}", err=True)
    click.echo(
        f"next: charrnn train {out or f'data:{name}'} --out runs/{name} --preset {corpus.preset}", err=True
    )
    click.echo(path)


def _find(catalogue: Path | None, name: str) -> Corpus:
    corpora = read_catalogue(catalogue)
    if name in BUILT_IN and name not in corpora:
        raise DataError(f"{name} comes with Python: charrnn train {name} needs no download")
    if name not in corpora:
        raise DataError(f"no corpus is called {name!r}; there are {', '.join(corpora)}")
    return corpora[name]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot make {folder}: {error.strerror}; give --out, or another folder in CHARRNN_DATA"
        ) from error


def _rows(corpus: Corpus) -> Iterator[tuple[str, Any]]:
    yield "name", corpus.name
    yield "about", corpus.about
    yield "address", corpus.url
    yield "licence", corpus.licence
    yield "preset", corpus.preset
    kinds = [("", corpus.expected)]
    if corpus.member is not None:
        yield "member", corpus.member.name
        kinds.append(("member's ", corpus.member.expected))
    for whose, expected in kinds:
        for what, value in asdict(expected).items():
            if value is not None:
                yield whose + what, value


def _size(num_bytes: int | None) -> str:
    return "" if num_bytes is None else f"{num_bytes / 1e6:.1f} MB"


@contextmanager
def _shown(corpus: Corpus) -> Iterator[Progress | None]:
    """A bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    with click.progressbar(length=corpus.expected.num_bytes or 1, label=corpus.name, file=sys.stderr) as bar:

        def show(here: int, total: int | None) -> None:
            bar.length = total or here
            bar.update(here - bar.pos)

        yield show

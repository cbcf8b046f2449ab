"""``charrnn quickstart``: the whole line once, as the commands a user would type."""

from __future__ import annotations

import importlib.util
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import click

from charrnn.cli.kinds import Number
from charrnn.cli.serve import READY
from charrnn.errors import CharrnnError, ConfigError
from charrnn.training.config import RANGES

TRAIN_PACKAGES = ("torch", "onnx", "safetensors")
STOP_TIMEOUT_S = 10.0


@click.command(
    epilog="""\b
    Example:
      charrnn quickstart --minutes 1
    """
)
@click.option(
    "--out", default="charrnn-quickstart", type=click.Path(path_type=Path), help="Folder to work in."
)
@click.option("--minutes", type=Number(*RANGES["max_minutes"]), default=1.0, help="How long to train.")
@click.option(
    "--force", is_flag=True, help="Replace the run and the bundle of an earlier quickstart in the folder."
)
def quickstart(out: Path, minutes: float, force: bool) -> None:
    """Train a small LSTM on the built-in corpus, export it, serve it and stream text from it.

    Each command is printed before it runs, so that it can be repeated with other options.
    """
    _check_packages()
    run, bundle = out / "run", out / "bundle"
    _clear(out, (run, bundle), force)
    with _taking_back(out):
        _run("train", "--out", str(run), "--max-minutes", repr(minutes))
    _run("export", str(run), "--out", str(bundle), "--name", "quickstart")
    with _serving(bundle) as address:
        _run("generate", "--server", address, "--prompt", "The ", "--temperature", "0.8", "--seed", "1")
        click.echo("\nstopping the server", err=True)
    _say_what_next(bundle)


def _check_packages() -> None:
    missing = [name for name in TRAIN_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise CharrnnError(
            f"training needs {', '.join(missing)}: install the train extra with `uv sync --extra train` "
            "or `pip install '.[train]'` in charrnn's source folder"
        )


def _clear(out: Path, made: Sequence[Path], force: bool) -> None:
    """Remove only what a quickstart makes, and only when told to."""
    if out.exists() and not force:
        raise ConfigError(
            f"{out} exists already: give --force to replace its run and bundle, or another --out"
        )
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is not a folder, so --force does not replace it: give another --out")
    try:
        for folder in made:
            if folder.is_dir():
                shutil.rmtree(folder)
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot use {out} as a folder to work in: {error.strerror or error}; "
            "see that it can be written to, or give another --out"
        ) from error


@contextmanager
def _taking_back(out: Path) -> Iterator[None]:
    """Leave no folder behind in which nothing was made."""
    try:
        yield
    finally:
        with suppress(OSError):  # not empty: something was made
            out.rmdir()


def _run(*arguments: str) -> None:
    with _child(arguments) as child:
        code = child.wait()
    if code:
        raise CharrnnError(f"charrnn {arguments[0]} ended with exit code {code}")


@contextmanager
def _serving(bundle: Path) -> Iterator[str]:
    """The address of a server over ``bundle``, which runs in a child process until the block ends."""
    with _child(("serve", str(bundle), "--listen", "127.0.0.1:0"), stderr=subprocess.PIPE) as server:
        assert server.stderr is not None
        yield _ready_address(server.stderr)


@contextmanager
def _child(arguments: Sequence[str], stderr: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """``charrnn ARGUMENTS`` of this installation, told to the user and stopped when the block ends."""
    click.echo(f"\n$ {shlex.join(['charrnn', *arguments])}", err=True)
    command = [sys.executable, "-m", "charrnn", *arguments]
    with subprocess.Popen(command, stderr=stderr, text=True) as child:
        try:
            yield child
        finally:
            _stop(child)


def _ready_address(talk: IO[str]) -> str:
    """Pass the server's talk on until it says where it listens, and the rest of it from a thread."""
    for line in talk:
        click.echo(line, err=True, nl=False)
        if line.startswith(READY):
            threading.Thread(target=_pass_on, args=(talk,), daemon=True).start()
            return line.removeprefix(READY).split(";")[0].strip()
    raise CharrnnError("charrnn serve ended before it was ready")


def _pass_on(talk: IO[str]) -> None:
    for line in talk:
        click.echo(line, err=True, nl=False)


def _stop(child: subprocess.Popen[str]) -> None:
    """By its process id, and only if it still runs."""
    child.terminate()
    try:
        child.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()


def _say_what_next(bundle: Path) -> None:
    click.echo(
        "\ndone; things to try next:\n"
        f"  charrnn sample {shlex.quote(str(bundle))} --prompt 'The ' --temperature 0.5\n"
        f"  charrnn serve {shlex.quote(str(bundle))}          # and in another terminal: charrnn generate\n"
        "  charrnn train YOUR-TEXT.txt --out my-run --max-minutes 10\n"
        "  charrnn doctor",
        err=True,
    )

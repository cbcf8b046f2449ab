"""``charrnn eval``: how well a model predicts a text."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from charrnn.cli.tables import print_table

if TYPE_CHECKING:
    from charrnn.training import Run
    from charrnn.training.measures import Copied, Measures

_Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]

NO_NGRAM = "a bundle holds no training text; evaluate the run it was exported from"


@click.command(
    epilog="""\b
    Examples:
      charrnn eval runs/shakespeare
      charrnn eval runs/shakespeare --split test --dynamic --memorisation
      charrnn eval runs/shakespeare --text sonnets.txt --json
      charrnn eval shakespeare --text sonnets.txt --precision fp32

    \b
    Keys of --json, losses as {nats, bpc, num_tokens}:
      nats, bpc, num_symbols             the carried loss
      model, step, split, text           what was evaluated on what; split is the run's
      carried, cold, by_position         the state carried; zero before each window; by symbols since zero
      ngram, no_ngram                    orders 1 to 8 counted on the training part; why there is none
      dynamic, memorisation              null if not asked for
    """
)
@click.argument("model", metavar="RUN|BUNDLE", type=click.Path())
@click.option("--text", metavar="FILE", type=click.Path(), help="Text to predict, from its start.")
@click.option(
    "--split",
    "part",
    type=click.Choice(["validation", "test", "train"]),
    default="validation",
    help="Without --text: the part of the run's own text.",
)
@click.option("--ngram/--no-ngram", default=True, help="Losses of n-grams counted on the run's train part.")
@click.option("--dynamic", is_flag=True, help="Also the loss of a copy that goes on learning (Krause 2018).")
@click.option("--memorisation", is_flag=True, help="Also what of 20,000 drawn symbols was learnt by heart.")
@click.option("--precision", help="Of a bundle: int8 or fp32.", show_default="int8 if there")
@click.option(
    "--which", type=click.Choice(["best", "last"]), default="best", help="Of a run: the checkpoint."
)
@click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads.", show_default="all cores")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON document.")
@click.pass_context
def eval(context: click.Context, /, model: str, text: str | None, as_json: bool, **options: Any) -> None:
    """Print the loss of RUN (with torch) or BUNDLE (without) on a text, in nats and bits per character.

    A run predicts every character but the first with the state carried: through FILE in one stream, through a
    part of its own text in up to 32 side by side, through documents each from its beginning. A bundle
    predicts all of them, the first from its start symbol, and long texts in parallel parts, as compress does.
    """
    lines: Sequence[str | _Table]
    is_bundle = (Path(model) / "manifest.json").exists()
    _check_options(context, is_bundle=is_bundle)
    if is_bundle:
        figures = _measure_bundle(model, str(text), options)
        lines = _bundle_lines(figures)
    else:
        figures, lines = _measure_run(model, text, options)
    if as_json:
        click.echo(json.dumps(figures, indent=2))
        return
    for line in lines:
        click.echo(line) if isinstance(line, str) else print_table(*line)


def _check_options(context: click.Context, *, is_bundle: bool) -> None:
    """Refuse what would mean nothing for this model or text."""
    given = {
        name for name in context.params if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    for name in ("dynamic", "memorisation"):
        if is_bundle and context.params[name]:
            raise click.UsageError(
                f"--{name} needs the training text, which a bundle lacks: give its run", context
            )
    if "part" in given and (is_bundle or context.params["text"] is not None):
        raise click.UsageError("--split names a part of a run's own text: it goes with no --text", context)
    if is_bundle and context.params["text"] is None:
        raise click.UsageError("a bundle holds no text: give --text FILE, or its run", context)
    if is_bundle and "which" in given:
        raise click.UsageError("--which is of a run; a bundle holds one checkpoint: leave it out", context)
    if not is_bundle and "precision" in given:
        raise click.UsageError("--precision is of a bundle; a run computes in float32: leave it out", context)


def _measure_bundle(bundle: str, text: str, options: dict[str, Any]) -> dict[str, Any]:
    from charrnn import coding

    bits, report = coding.measure(text, bundle, precision=options["precision"], workers=options["threads"])
    bpc = bits / report.num_symbols if report.num_symbols else 0.0
    nats = bpc * math.log(2)
    return {
        "bpc": bpc,
        "nats": nats,
        "num_symbols": report.num_symbols,
        "model": bundle,
        "text": text,
        "ngram": None,
        "no_ngram": NO_NGRAM,
    }


def _bundle_lines(figures: dict[str, Any]) -> list[str]:
    return [
        f"{figures['bpc']:.4f} bits per character, {figures['nats']:.4f} nats, "
        f"over {figures['num_symbols']:,} characters of {figures['text']}",
        f"no n-gram column: {NO_NGRAM}",
    ]


def _measure_run(
    path: str, text: str | None, options: dict[str, Any]
) -> tuple[dict[str, Any], list[str | _Table]]:
    from charrnn.training import load_run
    from charrnn.training.measures import Wanted, measure, part_of, read_text, use_threads

    use_threads(options["threads"])
    run = load_run(path, options["which"])
    wanted = Wanted(options["ngram"], options["dynamic"], options["memorisation"])
    if text is None:
        found = measure(run, part_of(run, options["part"]), options["part"], wanted)
    else:  # in one stream, as a bundle reads it
        found = measure(run, read_text(text, run), text, wanted, num_streams=1)
    return _figures(run, path, found), _run_tables(run, path, found, is_own=text is None)


def _figures(run: Run, path: str, found: Measures) -> dict[str, Any]:
    told = found.to_json()
    return {
        "bpc": found.carried.bpc,
        "nats": found.carried.nats,
        "num_symbols": found.carried.num_tokens,
        "model": path,
        "step": run.step,
        "split": {"name": run.split.name, "sizes": run.split.sizes},
        **told,
        "no_ngram": None if found.ngram else "not asked for",
    }


def _run_tables(run: Run, path: str, found: Measures, *, is_own: bool) -> list[str | _Table]:
    title = f"{path}, step {run.step:,}: {found.text}, {found.num_tokens:,} {run.config.unit}s"
    if is_own:
        title += f" (split {run.split.name} of {run.summary()['corpus']['name']})"
    head = ["loss", "nats", "bits", "predictions"]
    rows = [
        [name, f"{loss.nats:.4f}", f"{loss.bpc:.4f}", f"{loss.num_tokens:,}"]
        for name, loss in found.losses().items()
    ]
    tables: list[str | _Table] = [(title, head, rows)]
    if found.ngram is not None:
        tables.append(_about_ngrams(run, found))
    tables.append(_position_table(found))
    return tables + (_copied_tables(found.copied) if found.copied else [])


def _about_ngrams(run: Run, found: Measures) -> str:
    assert found.ngram is not None
    ngram, difference = found.ngram, found.carried.nats - found.ngram.best_nats
    verdict = f"{abs(difference):.4f} nats {'above' if difference > 0 else 'below'}"
    line = (
        f"the model is {verdict} the best n-gram, of order {ngram.best_order} (modified Kneser-Ney, "
        f"counted on the {ngram.train_used:,} {run.config.unit}s of the train part)"
    )
    return f"{line}; {ngram.left_out}" if ngram.left_out else line


def _position_table(found: Measures) -> _Table:
    rows = [
        [f"{bucket.first}-{bucket.last}", f"{bucket.loss.nats:.4f}", f"{bucket.loss.bpc:.4f}"]
        for bucket in found.by_position
    ]
    return "loss by symbols since a zero state", ["position", "nats", "bits"], rows


def _copied_tables(copied: Copied) -> list[str | _Table]:
    held_out = copied.held_out.novel if copied.held_out else {}
    rows = [
        [str(length), f"{share:.1%}", f"{held_out[length]:.1%}" if length in held_out else "-"]
        for length, share in copied.drawn.novel.items()
    ]
    title = f"substrings that are not in the training text, of {copied.drawn.num_tokens:,} drawn symbols"
    tables: list[str | _Table] = [(title, ["length", "drawn", "validation"], rows), _longest(copied)]
    if (made := copied.documents) is not None:
        tables.append(
            f"of {made.num_documents:,} documents drawn, {made.novel:.1%} are not in the training text"
            f"{_beside(copied)}, and {made.num_duplicates:,} were drawn before"
        )
    return tables


def _beside(copied: Copied) -> str:
    """The share among documents that nobody drew: as much as a model that has learnt nothing by heart."""
    held_out = copied.held_out_documents
    if held_out is None:
        return ""
    return f", of {held_out.num_documents:,} validation documents {held_out.novel:.1%}"


def _longest(copied: Copied) -> str:
    longest = copied.drawn.longest
    if longest is None:
        return "nothing drawn is in the training text"
    where = f"at {longest.train_at:,} of the training text"
    beside = copied.held_out.longest.length if copied.held_out and copied.held_out.longest else 0
    excerpt = copied.excerpt if len(copied.excerpt) <= 80 else f"{copied.excerpt[:80]}..."
    held_out = f"; of validation text {beside}" if copied.held_out else "; there is no validation text"
    return f"longest run drawn that is there too: {longest.length} symbols {where}, {excerpt!r}{held_out}"

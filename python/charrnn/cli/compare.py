"""``charrnn compare``: runs side by side."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from charrnn.cli.tables import print_table

if TYPE_CHECKING:
    from charrnn.training.comparison import Comparison, Row


@click.command(
    epilog="""\b
    Examples:
      charrnn compare runs/small runs/big
      charrnn compare runs/* --with-test --json

    \b
    Keys of --json:
      runs        path, step, num_parameters, elapsed_s, settings, losses by part, ngram, split, corpus
      differing   settings that are not the same in all runs, a value for each
      warnings    why losses cannot be compared
    """
)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path())
@click.option("--with-test", is_flag=True, help="Also the loss on the test part.")
@click.option("--ngram/--no-ngram", default=True, help="The best n-gram of the same split.")
@click.option("--which", type=click.Choice(["best", "last"]), default="best", help="The checkpoint.")
@click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads.", show_default="all cores")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def compare(runs: tuple[str, ...], with_test: bool, as_json: bool, **options: Any) -> None:
    """Print a table of RUNs: settings that differ, size, time, and losses on the validation part."""
    from charrnn.training import comparison
    from charrnn.training.measures import use_threads

    use_threads(options["threads"])
    found = comparison.compare(runs, which=options["which"], with_test=with_test, with_ngram=options["ngram"])
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
    else:
        print_table(_title(found), ["", *(row.path for row in found.rows)], _rows(found, with_test))
    for warning in found.warnings:
        click.echo(f"warning: {warning}", err=True)


def _title(found: Comparison) -> str:
    texts = {f"split {row.split['name']} of {row.corpus.get('name')}" for row in found.rows}
    return texts.pop() if len(texts) == 1 else "different texts or splits"


def _rows(found: Comparison, with_test: bool) -> list[list[str]]:
    """A line a fact, a column a run: settings are many, runs are few."""
    rows = [[name, *map(str, values)] for name, values in found.differing.items()]
    facts = {
        "parameters": [f"{row.num_parameters:,}" for row in found.rows],
        "step": [f"{row.step:,}" for row in found.rows],
        "minutes": ["-" if row.elapsed_s is None else f"{row.elapsed_s / 60:.1f}" for row in found.rows],
    }
    rows += [[name, *cells] for name, cells in facts.items()]
    for part in ("validation", "test")[: 1 + with_test]:
        rows.append([f"{part} size", *(f"{row.split['sizes'].get(part, 0):,}" for row in found.rows)])
        rows.append([f"{part} nats", *(_loss(row, part, "nats") for row in found.rows)])
        rows.append([f"{part} bits", *(_loss(row, part, "bpc") for row in found.rows)])
    if any(row.ngram for row in found.rows):
        rows.append(["best n-gram nats", *map(_ngram, found.rows)])
    return rows


def _loss(row: Row, part: str, unit: str) -> str:
    return f"{getattr(row.losses[part], unit):.4f}" if part in row.losses else "-"


def _ngram(row: Row) -> str:
    return "-" if row.ngram is None else f"{row.ngram.best_nats:.4f} (order {row.ngram.best_order})"

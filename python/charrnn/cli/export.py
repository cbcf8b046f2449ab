"""``charrnn export``: a trained run as a folder that serves without torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal

import click

from charrnn.cli.kinds import CommaList, Number


def _precisions(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    from charrnn.export.arithmetic import PRECISIONS

    names = tuple(name.strip() for name in value.split(","))
    if unknown := [name for name in names if name not in PRECISIONS]:
        raise click.BadParameter(f"{unknown[0]!r} is not one of {', '.join(PRECISIONS)}", context, parameter)
    return names


_BUNDLE_OPTIONS = (
    click.option("--out", required=True, metavar="BUNDLE", type=click.Path(), help="Folder to write."),
    click.option(
        "--precision",
        "precisions",
        type=CommaList(),
        default="fp32,int8",
        callback=_precisions,
        help="Precisions, separated by commas.",
    ),
    click.option("--name", help="Name of the model.", show_default="the folder's"),
    click.option(
        "--model-version", help="What tells it from others of its name.", show_default="digits of its digest"
    ),
    click.option("--force", is_flag=True, help="Replace a bundle that is there already."),
    click.option(
        "--corpus-license", metavar="TEXT", help="Licence of the training text, for the model card."
    ),
    click.option(
        "--max-logit-difference",
        type=Number(0),
        default=1e-4,
        help="What an fp32 step may differ from torch's.",
    ),
    click.option("--max-int8-bpc", type=Number(0), default=0.01, help="Bits per character int8 may add."),
    click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON document."),
)


def bundle_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of whatever writes a bundle, from anything."""
    for option in reversed(_BUNDLE_OPTIONS):
        command = option(command)
    return command


@click.command(
    epilog="""\b
    Example:
      charrnn export runs/shakespeare --out shakespeare

    Each precision is compared with the trained model before anything is written: fp32 by its logits, int8 by
    the bits per character it adds on the validation part.
    """
)
@click.argument("run", metavar="RUN", type=click.Path())
@click.option("--which", type=click.Choice(["best", "last"]), default="best", help="Which checkpoint.")
@bundle_options
def export(
    run: str,
    out: str,
    precisions: tuple[str, ...],
    name: str | None,
    model_version: str | None,
    which: Literal["best", "last"],
    force: bool,
    corpus_license: str | None,
    max_logit_difference: float,
    max_int8_bpc: float,
    as_json: bool,
) -> None:
    """Export the trained RUN as a BUNDLE: a folder that serves and samples without torch."""
    from charrnn.export import ExportOptions, Tolerances
    from charrnn.export import export as run_export

    tolerances = Tolerances(max_logit_difference, max_int8_bpc)
    options = ExportOptions(name, model_version, force, corpus_license, tolerances)
    report = run_export(run, out, precisions, which=which, options=options)
    for line in report.lines():
        click.echo(line, err=True)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2))

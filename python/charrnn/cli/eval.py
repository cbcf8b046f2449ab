"""``charrnn eval``: how well a model predicts a text."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click


@click.command(
    epilog="""\b
    Examples:
      charrnn eval runs/shakespeare --text sonnets.txt
      charrnn eval shakespeare --text sonnets.txt --precision fp32 --json
    """
)
@click.argument("model", metavar="RUN|BUNDLE", type=click.Path())
@click.option(
    "--text", required=True, metavar="FILE", type=click.Path(), help="Text to predict, from its start."
)
@click.option("--precision", help="Of a bundle: int8 or fp32.", show_default="int8 if there")
@click.option(
    "--which", type=click.Choice(["best", "last"]), default="best", help="Of a run: the checkpoint."
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON document.")
def eval(model: str, text: str, precision: str | None, which: str, as_json: bool) -> None:
    """Print the loss of RUN (with torch) or BUNDLE (without) on a text, in nats and bits per character.

    A run predicts every character but the first with the state carried from end to end. A bundle predicts all
    of them, the first from its start symbol, and long texts in parallel parts, as compress does.
    """
    if (Path(model) / "manifest.json").exists():
        bits, num_symbols = _measure(model, text, precision)
    else:
        bits, num_symbols = _evaluate(model, text, which)
    bpc = bits / num_symbols if num_symbols else 0.0
    figures = {"bpc": bpc, "nats": bpc * math.log(2), "num_symbols": num_symbols}
    if as_json:
        click.echo(json.dumps(figures, indent=2))
    else:
        click.echo(
            f"{bpc:.4f} bits per character, {figures['nats']:.4f} nats, over {num_symbols:,} characters"
        )


def _measure(bundle: str, text: str, precision: str | None) -> tuple[float, int]:
    from charrnn import coding

    bits, report = coding.measure(text, bundle, precision=precision)
    return bits, report.num_symbols


def _evaluate(run_path: str, text: str, which: str) -> tuple[float, int]:
    from charrnn.errors import DataError
    from charrnn.training import evaluate, load_run

    run = load_run(run_path, which)  # type: ignore[arg-type]
    try:
        tokens = run.vocab.encode(Path(text).read_bytes().decode())  # newlines as they are
    except OSError as error:
        raise DataError(f"{text} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{text} is not UTF-8: {error.reason} at byte {error.start}") from error
    if len(tokens) < 2:
        raise DataError(f"{text} has {len(tokens)} characters; a loss needs two or more")
    loss = evaluate(run.model, tokens, num_streams=1)
    return loss.bpc * loss.num_tokens, loss.num_tokens

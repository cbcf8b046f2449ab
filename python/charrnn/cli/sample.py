"""``charrnn sample``: texts from a bundle, made in this process."""

from __future__ import annotations

from typing import Any

import click

from charrnn.cli.sampling import parse_text_options, print_texts, text_options


@click.command(
    epilog="""\b
    Examples:
      charrnn sample shakespeare --prompt 'ROMEO:' --temperature 0.8
      charrnn sample shakespeare --seed 1 --max-tokens 2000 --json > events.jsonl
    """
)
@click.argument("bundle", type=click.Path())
@text_options
@click.option("--device", default="cpu", help="cpu, or cuda and cuda:N for an NVIDIA GPU.")
@click.option("--precision", help="int8 or fp32.", show_default="int8 if there")
@click.option("--workers", type=click.IntRange(1), help="Decode threads.", show_default="one")
def sample(bundle: str, device: str, precision: str | None, workers: int | None, **options: Any) -> None:
    """Print text from BUNDLE, an exported model, as it is made."""
    from charrnn.engine import Engine

    text = parse_text_options(options)
    # Texts are made one after another: a second worker would only wait.
    with Engine(bundle, device=device, precision=precision, workers=workers or 1, max_streams=1) as engine:
        print_texts(engine.generate, text)

"""``charrnn presets``: settings that go together, by name."""

from __future__ import annotations

import json
from typing import Any

import click

from charrnn.training import presets as shelf
from charrnn.training.config import TrainConfig
from charrnn.training.forecast import num_parameters

VOCAB_SIZE = 96
"""For which parameters are counted: about what English text has."""


@click.command(
    epilog="""\b
    Examples:
      charrnn presets
      charrnn presets quick > my.toml       # edit it, then: charrnn train book.txt --out run --config my.toml
      charrnn train book.txt --out runs/book --preset quick
    """
)
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def presets(name: str | None, as_json: bool) -> None:
    """List the presets of charrnn train, or print the one called NAME as a file for --config."""
    if as_json:
        found = [_told(shelf.read(name))] if name else [_told(shelf.read(each)) for each in shelf.names()]
        click.echo(json.dumps(found[0] if name else found, indent=2))
    elif name:
        click.echo(shelf.read(name).text, nl=False)
    else:
        click.echo("\n".join(map(_line, map(shelf.read, shelf.names()))))


def _told(preset: shelf.Preset) -> dict[str, Any]:
    return {
        "name": preset.name,
        "purpose": preset.purpose,
        "settings": dict(preset.settings),
        "num_parameters": num_parameters(TrainConfig(**preset.settings), VOCAB_SIZE),
        "vocab_size": VOCAB_SIZE,
    }


def _line(preset: shelf.Preset) -> str:
    config = TrainConfig(**preset.settings)
    millions = num_parameters(config, VOCAB_SIZE) / 1e6
    shape = f"{config.cell} {config.num_layers}x{config.hidden_size}"
    return f"{preset.name:<12} {shape:<11} {millions:4.1f}M  {preset.purpose}"

"""``charrnn bench``: load on a server, and what each layer beneath it costs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import click

from charrnn.bench.document import compare, differences, read_document, shown
from charrnn.bench.layers import Layer, client_layers, engine_layers, measure_layers, num_workers, serving
from charrnn.cli.kinds import CommaList, Number
from charrnn.cli.load import load
from charrnn.cli.settings import with_settings
from charrnn.cli.tables import print_table
from charrnn.errors import RequestError

MAX_STREAMS = 100_000
MAX_CLIENTS = 1280
"""Streams of a ladder: its client in Python has a thread for each, and 2,048 of them wait for one another."""


class BenchGroup(click.Group):
    """A group whose first word may also be an address, or an option of the load on it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Leave the words to the command, but for a lone ``--help``."""
        if args[:1] in ([], ["--help"]):
            return super().parse_args(ctx, args or ["--help"])
        ctx._protected_args, ctx.args = args[:1], args[1:]
        return ctx.args

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of that name, or the load with all words."""
        if args[0] in self.commands:
            return super().resolve_command(ctx, args)
        return load.name, with_settings(load), args

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Of the load and of the commands."""
        return ["[OPTIONS] ADDR | engine BUNDLE | ladder BUNDLE | compare A.json B.json"]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The load's, then the commands."""
        with_settings(load).format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


@click.group(
    cls=BenchGroup,
    epilog="""\b
    Examples:
      charrnn bench 127.0.0.1:50051 --rate 50
      charrnn bench 127.0.0.1:50051 --rate 10..1000 --steps 8 --report load
      charrnn bench 127.0.0.1:50051 --find-knee --slo first_char=100ms,inter_char=20ms
      charrnn bench 127.0.0.1:50051 --streams 200 --check
      charrnn bench ladder shakespeare

    A rate is kept whatever the server does, and times count from when a request was due. With --streams a
    slow server is asked less often, and looks better than it is.
    """,
)
def bench() -> None:
    """Put load on the charrnn server at ADDR, or measure what each layer of one costs."""


@bench.command("compare")
@click.argument("before", metavar="A.json", type=click.Path())
@click.argument("after", metavar="B.json", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def compare_(before: str, after: str, as_json: bool) -> None:
    """Set the figures of two documents beside each other."""
    documents = read_document(before), read_document(after)
    rows = list(compare(*documents))
    if not rows:
        raise RequestError(f"{before} and {after} have no load in common")
    if as_json:
        click.echo(json.dumps([{**vars(row), "ratio": row.ratio} for row in rows], indent=2))
        return
    for name in differences(*documents):
        click.echo(f"note: the plans differ in {name}", err=True)
    loads = len({row.load for row in rows}) > 1
    cells = [
        [
            f"{row.load}: {row.name}" if loads else row.name,
            shown(row.before),
            shown(row.after),
            _ratio(row.ratio),
        ]
        for row in rows
    ]
    print_table(f"{before} and {after}", ["", "A", "B", "B / A"], cells)


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.3f}"


def _layer_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document."),
        click.option("--rounds", type=click.IntRange(1), default=5, help="Of which the median is given."),
        click.option(
            "--seconds", type=Number(0, 3600, min_open=True), default=2.0, help="Of each layer in a round."
        ),
        click.option("--precision", help="int8 or fp32.", show_default="int8 if there"),
        click.option("--workers", type=click.IntRange(1), help="Decode threads.", show_default="one a core"),
        click.option("--streams", type=CommaList(), default="64", metavar="N,N,...", help="Texts at once."),
        click.argument("bundle", metavar="BUNDLE", type=click.Path()),
    ):
        command = option(command)
    return command


@bench.command()
@_layer_options
def engine(bundle: str, as_json: bool, **options: Any) -> None:
    """Measure steps of BUNDLE's model, draws and the engine, in this process."""
    _ladder(bundle, as_json, has_clients=False, **options)


@bench.command()
@_layer_options
def ladder(bundle: str, as_json: bool, **options: Any) -> None:
    """Measure every layer: steps, draws, engine, and clients over gRPC in Rust and in Python.

    The clients read from a charrnn serve of their own, which shares the cores with them. The one in Python
    has a thread a stream, so that there are at most 1,280.
    """
    _ladder(bundle, as_json, has_clients=True, **options)


def _ladder(
    bundle: str,
    as_json: bool,
    *,
    has_clients: bool,
    streams: str,
    workers: int | None,
    precision: str | None,
    seconds: float,
    rounds: int,
) -> None:
    counts = _counts(streams, MAX_CLIENTS if has_clients else MAX_STREAMS)
    found: dict[int, list[Layer]] = {}
    for count in counts:
        measures = engine_layers(bundle, streams=count, workers=workers, precision=precision)
        if has_clients:
            arguments = ["--queue", str(count), *(["--workers", str(workers)] if workers else [])]
            arguments += ["--precision", precision] if precision else []
            with serving(bundle, arguments) as server:
                measures |= client_layers(server.address, streams=count)
                found[count] = measure_layers(measures, seconds=seconds, rounds=rounds)
        else:
            found[count] = measure_layers(measures, seconds=seconds, rounds=rounds)
        if not as_json:
            _print_layers(bundle, count, found[count])
    if as_json:
        made = {"format": "charrnn-ladder/1", "bundle": bundle, "workers": num_workers(workers)}
        layers = {str(count): [vars(layer) for layer in found[count]] for count in counts}
        click.echo(json.dumps({**made, "precision": precision, "streams": layers}))


def _counts(words: str, most: int) -> list[int]:
    try:
        counts = [int(word) for word in words.split(",")]
    except ValueError:
        counts = [0]
    if not all(0 < count <= most for count in counts):
        raise RequestError(f"--streams is {words!r}; it must be numbers from 1 to {most} like 1,16,64")
    return counts


def _print_layers(bundle: str, streams: int, layers: Sequence[Layer]) -> None:
    rows = [
        [
            layer.name,
            f"{layer.chars_per_s:,.0f}",
            "-" if layer.ratio is None else f"{layer.ratio:.2f}",
            f"{layer.chars_per_s / layers[0].chars_per_s:.2f}",
            "-" if layer.cpu_us_per_char is None else f"{layer.cpu_us_per_char:.2f}",
        ]
        for layer in layers
    ]
    head = ["layer", "characters/s", "of the one before", "of the first", "cpu us/character"]
    print_table(f"{bundle}, {streams:,} streams", head, rows)

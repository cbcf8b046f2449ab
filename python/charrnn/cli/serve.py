"""``charrnn serve``: exported models over gRPC."""

from __future__ import annotations

import click

from charrnn.cli.kinds import YEAR_S, Number

READY = "serving on "
"""Begins the line that tells the address, once requests are answered."""

METRICS = "metrics on "
"""Begins the line after it, with ``--metrics``."""


@click.command(
    epilog="""\b
    Examples:
      charrnn serve shakespeare
      charrnn serve shakespeare linux --listen 127.0.0.1:0 --workers 2
      charrnn serve shakespeare --metrics 127.0.0.1:9464

    Ctrl-C or SIGTERM lets running texts finish and refuses new ones; then the exit code is 0. A second one
    stops at once, with 130 for Ctrl-C and 143 for SIGTERM.
    """
)
@click.argument("bundles", metavar="BUNDLE...", nargs=-1, required=True, type=click.Path())
@click.option(
    "--listen",
    default="127.0.0.1:50051",
    metavar="HOST:PORT",
    help="Where to listen; port 0 takes a free one.",
)
@click.option(
    "--metrics",
    metavar="HOST:PORT",
    help="Where Prometheus finds /metrics, and others /healthz, over plain HTTP.",
    show_default="off",
)
@click.option(
    "--workers", type=click.IntRange(1), help="Decode threads of each model.", show_default="one a core"
)
@click.option("--max-streams", type=click.IntRange(1), default=64, help="Texts each worker decodes at once.")
@click.option(
    "--queue", type=click.IntRange(0), default=1024, help="Texts that may wait; more are refused at once."
)
@click.option("--precision", help="int8 or fp32.", show_default="int8 if there")
@click.option(
    "--drain-timeout", type=Number(0, YEAR_S), default=30.0, help="Seconds running texts get to finish."
)
@click.option(
    "--insecure", is_flag=True, help="Let other machines connect, without encryption or authentication."
)
def serve(
    bundles: tuple[str, ...],
    listen: str,
    metrics: str | None,
    workers: int | None,
    max_streams: int,
    queue: int,
    precision: str | None,
    drain_timeout: float,
    insecure: bool,
) -> None:
    """Serve each BUNDLE, an exported model, over gRPC until Ctrl-C."""
    from charrnn.server import serve as run_server

    run_server(
        bundles,
        listen=listen,
        metrics=metrics,
        insecure=insecure,
        workers=workers,
        max_streams=max_streams,
        max_queue=queue,
        precision=precision,
        drain_timeout_s=drain_timeout,
        on_ready=lambda address: click.echo(f"{READY}{address}; Ctrl-C stops", err=True),
        on_metrics=lambda address: click.echo(f"{METRICS}http://{address}/metrics", err=True),
    )

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
      charrnn serve shakespeare --listen 0.0.0.0:50051 \
        --tls-cert cert.pem --tls-key key.pem --token-file tokens

    SIGHUP reads certificates and tokens again. Ctrl-C or SIGTERM lets running texts finish and refuses new
    ones; then the exit code is 0. A second one stops at once, with 130 for Ctrl-C and 143 for SIGTERM.
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
    help="Where Prometheus finds /metrics, and others /healthz, over HTTP.",
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
@click.option("--tls-cert", type=click.Path(), metavar="FILE.pem", help="Encrypt, with this certificate.")
@click.option("--tls-key", type=click.Path(), metavar="FILE.pem", help="Its private key.")
@click.option(
    "--client-ca",
    type=click.Path(),
    metavar="FILE.pem",
    help="Let in whom this authority certifies.",
)
@click.option(
    "--token-file",
    type=click.Path(),
    metavar="FILE",
    help="Answer who sends one of these tokens; a line is name:token or token.",
)
@click.option(
    "--max-streams-per-client",
    type=click.IntRange(1),
    metavar="N",
    help="Texts that one client may have under way.",
    show_default="no limit",
)
@click.option(
    "--insecure",
    is_flag=True,
    help="Let other machines connect though not all is encrypted and authenticated.",
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
    tls_cert: str | None,
    tls_key: str | None,
    client_ca: str | None,
    token_file: str | None,
    max_streams_per_client: int | None,
    insecure: bool,
) -> None:
    """Serve each BUNDLE, an exported model, over gRPC until Ctrl-C."""
    from charrnn.server import serve as run_server

    scheme = "https" if tls_cert else "http"
    run_server(
        bundles,
        listen=listen,
        metrics=metrics,
        insecure=insecure,
        tls_cert=tls_cert,
        tls_key=tls_key,
        client_ca=client_ca,
        token_file=token_file,
        max_streams_per_client=max_streams_per_client,
        workers=workers,
        max_streams=max_streams,
        max_queue=queue,
        precision=precision,
        drain_timeout_s=drain_timeout,
        on_ready=lambda address: click.echo(f"{READY}{address}; Ctrl-C stops", err=True),
        on_metrics=lambda address: click.echo(f"{METRICS}{scheme}://{address}/metrics", err=True),
    )

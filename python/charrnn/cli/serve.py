"""``charrnn serve``: exported models over gRPC."""

from __future__ import annotations

from typing import Any, Literal

import click

from charrnn.cli.in_force import settings_in_force
from charrnn.cli.kinds import YEAR_S, Count, Number
from charrnn.cli.served_check import report_checks

READY = "serving on "
"""Begins the line that tells the address, once requests are answered."""

METRICS = "metrics on "
"""Begins the line after it, with ``--metrics``."""

ADMIN = "admin on "
"""Begins the line after those, with ``--admin``."""


@click.command(
    epilog="""\b
    Examples:
      charrnn serve shakespeare
      charrnn serve shakespeare linux --listen 127.0.0.1:0 --workers 2
      charrnn serve shakespeare --metrics 127.0.0.1:9464
      charrnn serve shakespeare --listen 0.0.0.0:50051 \\
        --tls-cert cert.pem --tls-key key.pem --token-file tokens
      charrnn serve shakespeare --resume-key-file resume.key
      charrnn serve shakespeare linux --check
      charrnn serve --config server.toml --print-config

    SIGHUP reads certificates and tokens again, and loads the bundles that have changed in their folders,
    while texts go on. Ctrl-C or SIGTERM lets running texts finish and refuses new ones; then the exit code
    is 0. A second one stops at once, with 130 for Ctrl-C and 143 for SIGTERM. Texts that do not finish in
    time go on with another server of the same key, if their clients asked.
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
    "--admin",
    metavar="HOST:PORT",
    help="Where charrnn admin loads and unloads models; on this machine only.",
    show_default="off",
)
@click.option(
    "--resume-key-file",
    metavar="FILE",
    type=click.Path(),
    help="32 secret bytes or more, the same for servers that go on with each other's texts.",
    show_default="a key of its own",
)
@click.option("--workers", type=Count(1), help="Decode threads of each model.", show_default="one a core")
@click.option("--max-streams", type=Count(1), default=64, help="Texts each worker decodes at once.")
@click.option("--queue", type=Count(0), default=1024, help="Texts that may wait; more are refused at once.")
@click.option(
    "--prompt-cache-bytes",
    type=Count(0, most=2**63 - 1),
    default=64 << 20,
    help="Room for each model's states after prompts, which are not read twice; 0 is off.",
)
@click.option("--device", default="cpu", help="cpu, or cuda and cuda:N for an NVIDIA GPU.")
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
    type=Count(1),
    metavar="N",
    help="Texts that one client may have under way.",
    show_default="no limit",
)
@click.option(
    "--insecure",
    is_flag=True,
    help="Let other machines connect though not all is encrypted and authenticated.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    help="How a line on stderr tells what happens.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warn", "error", "off"]),
    default="info",
    help="The least that is told; debug also tells of each text.",
)
@click.option(
    "--log-requests", is_flag=True, help="Tell of each text that is over: how long it took, not what it says."
)
@click.option(
    "--check",
    is_flag=True,
    help="Load, check and measure each BUNDLE instead; exit code 3 if one cannot be served.",
)
@click.option("--json", "as_json", is_flag=True, help="With --check: print one JSON document.")
@click.option("--print-config", is_flag=True, help="Print what holds, and where it was said, instead.")
@click.pass_context
def serve(
    context: click.Context,
    /,
    bundles: tuple[str, ...],
    check: bool,
    as_json: bool,
    print_config: bool,
    **options: Any,
) -> None:
    """Serve each BUNDLE, an exported model, over gRPC until Ctrl-C."""
    if as_json and not check:
        raise click.UsageError("--json goes with --check", context)
    if print_config:
        click.echo("\n".join(settings_in_force(context)))
    elif check:
        shape = {name: options[name] for name in ("workers", "max_streams", "device", "precision")}
        report_checks(bundles, as_json=as_json, **shape)
    else:
        _run(bundles, **options)


def _run(
    bundles: tuple[str, ...],
    *,
    queue: int,
    drain_timeout: float,
    log_format: Literal["text", "json"],
    **options: Any,
) -> None:
    from charrnn.server import serve as run_server

    def tell(line: str) -> None:
        if log_format == "text":  # the extension says it in JSON
            click.echo(line, err=True)

    scheme = "https" if options["tls_cert"] else "http"
    run_server(
        bundles,
        max_queue=queue,
        drain_timeout_s=drain_timeout,
        log_format=log_format,
        on_ready=lambda address: tell(f"{READY}{address}; Ctrl-C stops"),
        on_metrics=lambda address: tell(f"{METRICS}{scheme}://{address}/metrics"),
        on_admin=lambda address: tell(f"{ADMIN}{address}"),
        **options,
    )

"""``charrnn generate``: texts from a server."""

from __future__ import annotations

import os
from typing import Any

import click

from charrnn.cli.connection import connection_fields, connection_options
from charrnn.cli.kinds import YEAR_S, Number
from charrnn.cli.sampling import parse_text_options, print_texts, text_options


@click.command(
    epilog="""\b
    Examples:
      charrnn generate --prompt 'ROMEO:' --temperature 0.8
      charrnn generate --server 127.0.0.1:50052 --model shakespeare --max-tokens 2000 --stop $'\\n\\n'
      CHARRNN_GENERATE_TOKEN=... charrnn generate --server models.example.org:443 --tls --prompt 'ROMEO:'

    Ctrl-C ends the text on the server too.
    """
)
@click.option("--server", default="127.0.0.1:50051", metavar="HOST:PORT", help="Where charrnn serve listens.")
@click.option("--model", default="", help="Name of the model.", show_default="the only one")
@text_options
@click.option(
    "--timeout",
    type=Number(0, YEAR_S, min_open=True),
    help="Seconds a text may take.",
    show_default="no limit",
)
@connection_options
def generate(server: str, model: str, timeout: float | None, **options: Any) -> None:
    """Print text from a charrnn server as it is made."""
    connection = connection_fields(options)
    text = parse_text_options(options)
    # gRPC logs what an error line says already; it reads this when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from charrnn.client import Client

    with Client(server, timeout=timeout, **connection) as client:
        print_texts(lambda prompt, **kwargs: client.generate(prompt, model=model, **kwargs), text)

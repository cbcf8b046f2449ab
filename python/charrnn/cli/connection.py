"""The options of commands that ask a server: how to reach it, and as whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from charrnn.errors import RequestError

F = TypeVar("F", bound=Callable[..., Any])

OPTIONS = (
    click.option("--tls", is_flag=True, help="Encrypt, and trust the system's authorities."),
    click.option("--ca", type=click.Path(), metavar="FILE.pem", help="Encrypt, and trust this authority."),
    click.option(
        "--server-name", help="Name in the server's certificate.", show_default="the address's host"
    ),
    click.option("--client-cert", type=click.Path(), metavar="FILE.pem", help="This client's certificate."),
    click.option("--client-key", type=click.Path(), metavar="FILE.pem", help="Its key."),
    click.option("--token", help="Sent as authorization: Bearer; better kept in the environment."),
    click.option("--insecure", is_flag=True, help="Send the token to another machine unencrypted."),
)
NAMES = {"tls": "tls", "ca": "ca", "server_name": "server_name", "client_cert": "cert", "client_key": "key"}
"""Of the options, and of the same in ``Client`` and ``Tls``."""


def connection_options(function: F) -> F:
    """Give a command these options; it takes them as ``**options`` for ``connection_fields``."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


def tls_fields(options: dict[str, Any]) -> dict[str, Any]:
    """What ``Tls.asked`` takes.

    Raises:
        RequestError: half of a pair of files.
    """
    if (options["client_cert"] is None) != (options["client_key"] is None):
        raise RequestError("--client-cert and --client-key go together; give both")
    return {name: options[option] for option, name in NAMES.items()}


def connection_fields(options: dict[str, Any]) -> dict[str, Any]:
    """What ``Client`` takes.

    Raises:
        RequestError: half of a pair of files.
    """
    return tls_fields(options) | {"token": options["token"], "insecure": options["insecure"]}

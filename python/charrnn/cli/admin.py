"""``charrnn admin``: models of a running server exchanged, and its end."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from charrnn.cli.kinds import YEAR_S, Number

if TYPE_CHECKING:
    from charrnn.admin import Admin


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--timeout",
            type=Number(0, YEAR_S, min_open=True),
            help="Seconds the call may take.",
            show_default="no limit",
        ),
        click.option(
            "--token",
            envvar="CHARRNN_ADMIN_TOKEN",
            help="Of the name admin, where there are tokens; better kept in the environment.",
        ),
        click.argument("address", metavar="ADDR"),
    ):
        command = option(command)
    return command


@click.group(
    epilog="""\b
    Examples:
      charrnn serve shakespeare --admin 127.0.0.1:50052
      charrnn admin load 127.0.0.1:50052 /srv/bundles/shakespeare-2
      charrnn admin unload 127.0.0.1:50052 linux
      charrnn admin drain 127.0.0.1:50052

    A model that is replaced or unloaded finishes its texts. One that cannot be loaded changes nothing.
    """
)
def admin() -> None:
    """Load and unload models of a running server, or drain it, where its --admin listens."""


@admin.command()
@_options
@click.argument("bundle", metavar="BUNDLE", type=click.Path())
def load(address: str, bundle: str, timeout: float | None, token: str | None) -> None:
    """Load BUNDLE, a folder on the server's machine, and serve it in place of the model of its name."""
    with _connect(address, timeout, token) as server:
        model, replaced = server.load(os.path.abspath(bundle))
    place = f", in place of {replaced}" if replaced else ""
    click.echo(f"{model.name} {model.version} ({model.precision}) is served{place}", err=True)


@admin.command()
@_options
@click.argument("model", metavar="MODEL")
def unload(address: str, model: str, timeout: float | None, token: str | None) -> None:
    """Serve MODEL no longer."""
    with _connect(address, timeout, token) as server:
        version = server.unload(model)
    click.echo(f"{model} {version} is served no longer", err=True)


@admin.command()
@_options
def drain(address: str, timeout: float | None, token: str | None) -> None:
    """Let running texts finish, take no new ones, and end the server."""
    with _connect(address, timeout, token) as server:
        server.drain()
    click.echo("the server is draining", err=True)


def _connect(address: str, timeout: float | None, token: str | None) -> Admin:
    # gRPC logs what an error line says already; it reads this when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from charrnn.admin import Admin

    return Admin(address, timeout=timeout, token=token)

"""``charrnn completion``: commands, options and their values completed by the shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command(
    epilog="""\b
    Examples:
      charrnn completion bash >> ~/.bashrc
      charrnn completion zsh >> ~/.zshrc
      charrnn completion fish > ~/.config/fish/completions/charrnn.fish
    """
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script that lets SHELL complete charrnn's commands, options and file names."""
    from charrnn.cli import COMPLETE_VARIABLE, cli

    kind = get_completion_class(shell)
    assert kind is not None
    # click's own source() runs bash to look at its version, also where there is none.
    complete = kind(cli, {}, "charrnn", COMPLETE_VARIABLE)
    click.echo(complete.source_template % complete.source_vars())

"""Errors name an option as it is typed: ``--hidden-size`` where the package says ``hidden_size``.

Knows spellings, not what options mean.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import click

from charrnn.errors import CharrnnError


def with_option_names(command: click.Command) -> None:
    """Have what ``command`` raises name its options as they are typed."""
    names = {
        str(option.name): option.opts[0]
        for option in command.params
        if "_" in str(option.name) and option.opts[0] == f"--{str(option.name).replace('_', '-')}"
    }
    if names and command.callback is not None:
        command.callback = _naming(command.callback, names)


def _naming(callback: Callable[..., Any], names: Mapping[str, str]) -> Callable[..., Any]:
    @functools.wraps(callback)
    def run(*arguments: Any, **options: Any) -> Any:
        try:
            return callback(*arguments, **options)
        except CharrnnError as error:
            error.args = (_named(str(error), names),)
            raise
        except click.UsageError as error:
            if type(error) is not click.UsageError:  # its kinds name their option themselves
                raise
            raise click.UsageError(_named(error.message, names), error.ctx) from error

    return run


def _named(message: str, names: Mapping[str, str]) -> str:
    """Names that stand alone: not those in a path, in quotes or in a longer word."""
    alone = rf"(?<![\w./'\"-])({'|'.join(map(re.escape, names))})(?![\w/'\"=-]|\.\w)"
    return re.sub(alone, lambda match: names[match[1]], message)

"""The settings that a command runs with, as a file for its ``--config`` that says where each comes from.

Knows click's parameters, not what they mean.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click
from click.core import ParameterSource

from charrnn.cli.settings import configured_from


def settings_in_force(context: click.Context) -> Iterator[str]:
    """Lines of TOML: what holds, and in a comment where it was said."""
    yield f"[{context.command.name}]"
    for parameter in context.command.params:
        name = parameter.name
        if name is None or not parameter.expose_value or name == "print_config":
            continue
        spelt = max(parameter.opts, key=len).lstrip("-") if isinstance(parameter, click.Option) else name
        value, said = context.params[name], _source(context, parameter)
        if value is None:
            shown = getattr(parameter, "show_default", None)
            yield f"# {spelt} =  # {said}{f': {shown}' if isinstance(shown, str) else ''}"
        else:
            yield f"{spelt} = {_toml(value)}  # {said}"


def _source(context: click.Context, parameter: click.Parameter) -> str:
    match context.get_parameter_source(parameter.name or ""):
        case ParameterSource.COMMANDLINE:
            return "command line"
        case ParameterSource.ENVIRONMENT:
            return f"environment, {parameter.envvar}"
        case ParameterSource.DEFAULT_MAP:
            return f"file {configured_from(context)}"
        case _:
            return "default"


def _toml(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)

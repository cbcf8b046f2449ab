"""Where options come from but the command line: ``CHARRNN_<COMMAND>_<OPTION>`` and ``--config FILE.toml``.

Knows names of options, not what they mean.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click

from charrnn.cli.kinds import misfit, spelt_in_utf8, takes_many
from charrnn.cli.naming import with_option_names
from charrnn.errors import ConfigError

_FILE = "charrnn.cli.settings.file"


def with_settings(command: click.Command) -> click.Command:
    """The same command, with ``--config`` and ``--debug`` and an environment variable for every option."""
    if not any(parameter.name == "config" for parameter in command.params):
        command.params += [_config_option(f"CHARRNN_{command.name}_CONFIG".upper()), debug_option()]
        for name, option in _names(command).items():
            option.envvar = f"CHARRNN_{command.name}_{name}".upper().replace("-", "_")
        for parameter in command.params:
            if parameter.name != "config":
                spelt_in_utf8(parameter)
        with_option_names(command)
    return command


def debug_option() -> click.Option:
    """``--debug``, which ``main`` looks for by itself: an error may come before any option is read."""
    return click.Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        envvar="CHARRNN_DEBUG",
        help="Show an error's traceback.",
    )


def _config_option(variable: str) -> click.Option:
    return click.Option(
        ["--config"],
        metavar="FILE.toml",
        envvar=variable,
        is_eager=True,  # it has to be known before any option that it gives
        expose_value=False,
        callback=_apply,
        help="Take what is neither given here nor in the environment from this file's table for the command.",
    )


def configured_from(context: click.Context) -> str | None:
    """The file that gave settings to a command, if one did."""
    path: str | None = context.meta.get(_FILE)
    return path


def _apply(context: click.Context, option: click.Parameter, path: str | None) -> None:
    if path is None:
        return
    context.meta[_FILE] = path
    name = context.command.name or ""
    tables, names = _read(path), _names(context.command)
    _check_tables(path, tables, context)
    context.default_map = {}
    for key, value in tables.get(name, {}).items():
        if key not in names:
            raise ConfigError(f"{path}: [{name}] has no setting {key!r}; it has {', '.join(sorted(names))}")
        if expected := misfit(names[key], value):
            message = f"{path}: {key} in [{name}] is {value!r}; give {expected}."
            raise click.BadParameter(message, context, names[key])
        context.default_map[names[key].name] = _as_default(names[key], value)


def _check_tables(path: str, tables: dict[str, Any], context: click.Context) -> None:
    """See that each table is named after a command, where the commands are known."""
    group = context.find_root().command if context.parent else None
    known = group.list_commands(context) if isinstance(group, click.Group) else list(tables)
    if unknown := [name for name in tables if name not in known]:
        raise ConfigError(f"{path}: there is no command for [{unknown[0]}]; commands are {', '.join(known)}")


def _as_default(option: click.Parameter, value: Any) -> Any:
    """The value as click takes it from the environment or the command line."""
    if takes_many(option):
        return value if isinstance(value, list) else [value]
    return ",".join(map(str, value)) if isinstance(value, list) else value


def _names(command: click.Command) -> dict[str, click.Parameter]:
    """Options by their spellings without the leading dashes, ``max-tokens`` and ``max_tokens`` alike.

    An argument that is a list has its name.
    """
    options = [
        p for p in command.params if isinstance(p, click.Option) and p.name not in ("config", "debug", "help")
    ]
    spelt: list[tuple[str, click.Parameter]] = [
        (name.lstrip("-"), option) for option in options for name in option.opts if name.startswith("--")
    ]
    spelt += [(p.name or "", p) for p in command.params if isinstance(p, click.Argument) and takes_many(p)]
    return {alias: option for name, option in spelt for alias in (name, name.replace("-", "_"))}


def _read(path: str) -> dict[str, Any]:
    try:
        settings = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    loose = [key for key, value in settings.items() if not isinstance(value, dict)]
    if loose:
        raise ConfigError(f"{path}: {loose[0]!r} stands in no table; put it under one such as [train]")
    return settings

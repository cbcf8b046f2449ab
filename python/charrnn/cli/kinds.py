"""Kinds of option values that click does not have.

Knows how a value is read from the command line, the environment or a file, not what it is for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

YEAR_S = 365 * 24 * 3600
"""Longer than anybody waits; far below what a clock can count."""


class Number(click.FloatRange):
    """A number in a range. NaN, which click finds in every range, is in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number, if it is one of the range."""
        number = super().convert(value, param, ctx)
        if number != number:
            self.fail(f"{number} is not in the range {self._describe_range()}.", param, ctx)
        return number


class Count(click.IntRange):
    """How many, ``min`` or more. What no machine has room for is refused here, where its option is known."""

    def __init__(self, min: int, most: int = 2**31 - 1) -> None:
        super().__init__(min)
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number, if there can be so many."""
        number = super().convert(value, param, ctx)
        if number > self._most:
            self.fail(f"{number} is more than {self._most}.", param, ctx)
        return number


class CommaList(click.types.StringParamType):
    """Words separated by commas; in a file also a list, or one number."""


class Amount(click.types.StringParamType):
    """A number, or words about numbers such as ``10..1000``; in a file also a bare number."""


def spelt_in_utf8(option: click.Parameter) -> None:
    """Let a text option refuse bytes that are not UTF-8. Paths are left alone: a file may have any name."""
    if isinstance(option.type, click.types.StringParamType):
        option.callback = _after_check(option.callback)


def _after_check(callback: Callable[..., Any] | None) -> Callable[..., Any]:
    def check(context: click.Context, option: click.Parameter, value: Any) -> Any:
        for text in [value] if isinstance(value, str) else value or ():
            if not _is_utf8(text):
                shown = text.encode(errors="surrogateescape")
                raise click.BadParameter(f"{shown!r} is not UTF-8.", context, option)
        return callback(context, option, value) if callback else value

    return check


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def takes_many(option: click.Parameter) -> bool:
    """Whether it is an option that may be repeated, or an argument that is a list."""
    return getattr(option, "multiple", False) or option.nargs == -1


def misfit(option: click.Parameter, value: object) -> str | None:
    """What an option takes, where a value of a file is of another type; nothing where it fits."""
    if takes_many(option) and isinstance(value, list):
        return next(filter(None, (_misfit_of_one(option, word) for word in value)), None)
    if isinstance(option.type, CommaList) and isinstance(value, list):
        return None if all(type(word) in (int, str) for word in value) else "a string or a list of words"
    return _misfit_of_one(option, value)


def _misfit_of_one(option: click.Parameter, value: object) -> str | None:
    types, name = _types_of(option)
    return None if type(value) in types else name


def _types_of(option: click.Parameter) -> tuple[tuple[type, ...], str]:
    if getattr(option, "is_flag", False):
        return (bool,), "true or false"
    if isinstance(option.type, click.types.IntParamType):
        return (int,), "a whole number"
    if isinstance(option.type, click.types.FloatParamType):
        return (int, float), "a number"
    if isinstance(option.type, CommaList):
        return (str, int), "a string or a list of words"
    if isinstance(option.type, Amount):
        return (str, int, float), "a number or a string"
    return (str,), "a string"

"""The exception tree: exit codes as the command line documents them, and the outline that shows them."""

from __future__ import annotations

import inspect
import re

import charrnn.errors
from charrnn.errors import CharrnnError


def _classes() -> dict[str, type[CharrnnError]]:
    members = vars(charrnn.errors).items()
    return {
        name: value for name, value in members if inspect.isclass(value) and issubclass(value, CharrnnError)
    }


def test_the_outline_is_the_tree() -> None:
    outline = re.findall(r"(\w+Error) +(\d+) ", charrnn.errors.__doc__ or "")
    assert dict(outline) == {name: str(value.exit_code) for name, value in _classes().items()}


def test_every_error_is_documented() -> None:
    assert all(value.__doc__ for value in _classes().values())


def test_a_refused_request_is_a_value_error() -> None:
    assert issubclass(charrnn.errors.RequestError, ValueError)

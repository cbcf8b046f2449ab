"""How the next character is drawn: the parameters, and the sampler itself over rows of logits.

Rules, limits and arithmetic live in the Rust core, which the engine and the server share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypedDict

from charrnn._native import SampleOutput, Sampler, SamplingParams
from charrnn.errors import RequestError

__all__ = ["SampleOutput", "Sampler", "SamplingFields", "SamplingParams", "refusing_overflow", "resolve"]


class SamplingFields(TypedDict, total=False):
    """What ``SamplingParams`` takes, for calls that take the same keywords."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    seed: int | None
    max_tokens: int
    stop: Sequence[str]
    include_stop: bool


def resolve(params: SamplingParams | None, given: SamplingFields) -> SamplingParams:
    """The parameters of a call that takes either ``params`` or single keywords.

    Raises:
        TypeError: both were given, or an unknown keyword.
        RequestError: a value out of its limits.
    """
    if params is not None and given:
        raise TypeError(f"give either params or {', '.join(given)}, not both")
    with refusing_overflow():
        return params or SamplingParams(**given)


@contextmanager
def refusing_overflow() -> Iterator[None]:
    """An integer that no field of the core can hold is refused like any other that is out of its limits."""
    try:
        yield
    except OverflowError as error:
        raise RequestError(f"a number is negative or too large: {error}") from error

"""How the next character is drawn: the parameters, and the sampler itself over rows of logits.

Rules, limits and arithmetic live in the Rust core, which the engine and the server share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from charrnn._native import SampleOutput, Sampler, SamplingParams
from charrnn.errors import RequestError

__all__ = ["SampleOutput", "Sampler", "SamplingFields", "SamplingParams", "resolve"]


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
    try:
        return params or SamplingParams(**given)
    except OverflowError as error:  # an integer that no field of the core holds
        raise RequestError(f"a sampling parameter is too large or negative: {error}") from error

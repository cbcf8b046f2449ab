"""How the next character is drawn: the parameters, and the sampler itself over rows of logits.

Rules, limits and arithmetic live in the Rust core, which the engine and the server share.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypedDict

import numpy as np
import numpy.typing as npt

from charrnn._native import SampleOutput, Sampler, SamplingParams
from charrnn.errors import RequestError

__all__ = ["SampleOutput", "Sampler", "SamplingFields", "SamplingParams", "refusing_overflow", "resolve"]


class SamplingFields(TypedDict, total=False):
    """What ``SamplingParams`` takes, for calls that take the same keywords."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    penalty_window: int
    no_repeat_ngram_size: int
    logit_bias: Mapping[int, float] | None
    allowed: Iterable[int] | None
    regex: str | None
    utf8: bool
    seed: int | None
    logprobs: int | None
    logprobs_mode: Literal["raw", "processed"]
    max_tokens: int
    min_tokens: int
    stop: Sequence[str]
    include_stop: bool


def from_fields(fields: Mapping[str, Any]) -> SamplingParams:
    """Undoes ``SamplingParams.fields``."""
    return SamplingParams(**fields)


def resolve(params: SamplingParams | None, given: SamplingFields) -> SamplingParams:
    """The parameters of a call that takes either ``params`` or single keywords.

    Raises:
        TypeError: both were given, or an unknown keyword.
        RequestError: a value out of its limits, or ``logprobs``.
    """
    if params is not None and given:
        raise TypeError(f"give either params or {', '.join(given)}, not both")
    with refusing_overflow():
        params = params or SamplingParams(**given)
    if params.logprobs is not None:
        raise RequestError("logprobs are told by Sampler.sample; a text does not carry them")
    return params


@contextmanager
def refusing_overflow() -> Iterator[None]:
    """An integer that no field of the core can hold is refused like any other that is out of its limits."""
    try:
        yield
    except OverflowError as error:
        raise RequestError(f"a whole number is negative or far too large: {error}") from error


def as_logits(value: Any) -> npt.NDArray[np.float32]:
    """What ``Sampler.sample`` cannot read in place: tensors of other libraries, other types or orders.

    Raises:
        RequestError: not a matrix of numbers in memory that this processor can read.
    """
    try:
        if hasattr(value, "__dlpack__") and not isinstance(value, np.ndarray):
            value = np.from_dlpack(value)
        array = np.ascontiguousarray(value, dtype=np.float32)
    except (TypeError, ValueError, BufferError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise RequestError(f"logits cannot be read: {reason}; give a (B, V) array of float32") from error
    if array.ndim != 2:
        raise RequestError(f"logits have {array.ndim} dimensions; expected 2, (B, V)")
    return array


def as_numbers(name: str, value: Any, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """One whole number a row, as an array of ``dtype``.

    Raises:
        RequestError: not a sequence of whole numbers, or one that ``dtype`` cannot hold.
    """
    given = np.asarray(value)
    if given.size and given.dtype.kind not in "iu":
        raise RequestError(f"{name} are of type {given.dtype}; give whole numbers, one a row")
    array = np.ascontiguousarray(given, dtype=dtype)
    if given.ndim != 1 or (given < 0).any() or (given > np.iinfo(dtype).max).any():
        raise RequestError(f"{name} must be one whole number of 0 to {np.iinfo(dtype).max} a row")
    return array

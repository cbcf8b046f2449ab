"""How the next character is drawn: the parameters, and the sampler itself over rows of logits.

Rules, limits and arithmetic live in the Rust core, which the engine and the server share.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from charrnn._native import SampleOutput, Sampler, SamplingParams
from charrnn.errors import RequestError

__all__ = ["SampleOutput", "Sampler", "SamplingFields", "SamplingParams", "refusing_overflow", "resolve"]


class SamplingFields(TypedDict, total=False):
    """What ``SamplingParams`` takes of a text, for calls that take the same keywords."""

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
        RequestError: a value out of its limits, or ``params.logprobs``, which are for ``Sampler.sample``.
    """
    if params is not None and given:
        raise TypeError(f"give either params or {', '.join(given)}, not both")
    with refusing_overflow():
        params = params or SamplingParams(**given)
    if params.logprobs is not None:
        raise RequestError(
            "params have logprobs, which are for Sampler.sample: give a text's call logprobs=True"
        )
    return params


@contextmanager
def refusing_overflow() -> Iterator[None]:
    """An integer that no field of the core can hold is refused like any other that is out of its limits."""
    try:
        yield
    except OverflowError as error:
        raise RequestError(f"a whole number is negative or far too large: {error}") from error


def as_logits(value: Any, num_dimensions: int = 2) -> npt.NDArray[np.float32]:
    """What the core cannot read in place: tensors of other libraries, other types, orders or alignments.

    ``num_dimensions`` is 2 for ``(B, V)`` or 1 for a row, ``(V,)``.

    Raises:
        RequestError: not real numbers in memory that this processor can read, or of another shape.
    """
    given = _in_memory("logits", value)
    if given.dtype.kind not in "biufOV":
        raise RequestError(f"logits cannot be read: their type is {given.dtype}; give real numbers")
    try:
        array: npt.NDArray[np.float32] = np.require(given, np.float32, ["C", "A"])
    except (TypeError, ValueError) as error:
        raise RequestError(f"logits cannot be read: {_line(error)}; give an array of float32") from error
    if array.ndim != num_dimensions:
        shape = "(B, V)" if num_dimensions == 2 else "(V,)"
        raise RequestError(f"logits have {array.ndim} dimensions; expected {num_dimensions}, {shape}")
    return array


def as_numbers(name: str, value: Any, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """One whole number a row, as an array of ``dtype``.

    Raises:
        RequestError: not a sequence of whole numbers, or one that ``dtype`` cannot hold.
    """
    if not hasattr(value, "__array__"):
        return _each_whole(name, value, dtype)
    given = _in_memory(name, value)
    if given.ndim != 1:
        raise RequestError(f"{name} have {given.ndim} dimensions; give whole numbers, one a row")
    if given.dtype.kind == "O":
        return _each_whole(name, given.tolist(), dtype)
    if given.size and given.dtype.kind not in "iu":
        raise RequestError(f"{name} are of type {given.dtype}; give whole numbers, one a row")
    outside = (given < 0) | (given > np.iinfo(dtype).max)
    if outside.any():
        row = int(outside.argmax())
        raise _not_whole(name, row, given[row].item(), dtype)
    return np.require(given, dtype, ["C", "A"])


def as_history(value: Any) -> list[list[int]]:
    """The tokens drawn so far, a sequence a row, of whatever holds them: lists, arrays, tensors.

    Raises:
        RequestError: not a sequence of token ids a row.
    """
    try:
        rows = list(value)
    except TypeError as error:
        raise RequestError(
            f"history is of type {type(value).__name__}; give token ids, a list a row"
        ) from error
    dtype = np.dtype(np.uint32)
    return [as_numbers(f"history[{row}]", ids, dtype).tolist() for row, ids in enumerate(rows)]


def _in_memory(name: str, value: Any) -> npt.NDArray[Any]:
    """An array of any type over the numbers of ``value``, where possible in place."""
    if isinstance(value, np.ma.MaskedArray):
        raise RequestError(f"{name} are a masked array, whose mask would be lost; fill it first (.filled)")
    try:
        if hasattr(value, "__dlpack__") and not isinstance(value, np.ndarray):
            return np.from_dlpack(_plain(value))
        return np.asanyarray(value)
    except (TypeError, ValueError, BufferError, RuntimeError) as error:
        raise RequestError(f"{name} cannot be read: {_line(error)}; give an array in CPU memory") from error


def _plain(tensor: Any) -> Any:
    """torch's tensors that numpy reads wrong, because a sign is still to be put on them, or not at all."""
    if getattr(tensor, "is_neg", bool)():
        tensor = tensor.resolve_neg()
    if str(tensor.dtype).startswith(("torch.bfloat16", "torch.float8")):
        tensor = tensor.float()
    return tensor


def _each_whole(name: str, value: Any, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """One by one: numpy makes floating point of lists that mix numbers below and above 2^63."""
    try:
        items = list(value)
    except TypeError as error:
        raise RequestError(f"{name} is {value!r}; give whole numbers, one a row") from error
    return np.array([_whole(name, row, item, dtype) for row, item in enumerate(items)], dtype)


def _whole(name: str, row: int, item: Any, dtype: np.dtype[Any]) -> int:
    try:
        number = operator.index(item)
    except TypeError as error:
        raise _not_whole(name, row, item, dtype) from error
    if not 0 <= number <= np.iinfo(dtype).max:
        raise _not_whole(name, row, number, dtype)
    return number


def _not_whole(name: str, row: int, value: Any, dtype: np.dtype[Any]) -> RequestError:
    limit = f"0 to 2^{np.iinfo(dtype).bits} - 1"
    return RequestError(f"{name}[{row}] is {value!r}; it must be a whole number of {limit}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())

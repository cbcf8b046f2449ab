"""What a client asks, checked: parameters and defaults are the package's own.

The yardsticks refuse what they do not do instead of ignoring it. Without ``max_chunk_delay_ms`` a chunk waits
until it is full, which spares them messages.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from model import Model

from charrnn import SamplingParams
from charrnn._native import limits
from charrnn._pb import charrnn_pb2 as pb
from charrnn.errors import RequestError


class Limit(NamedTuple):
    """The range of a number, and what its absence means."""

    low: float
    high: float
    default: float | None


LIMITS = {name: Limit(*numbers) for name, *numbers, _ in limits()}
DONE = {"temperature", "top_k", "seed", "sample_index", "max_tokens", "stop", "include_stop"}
OFF = SamplingParams()


@dataclass(frozen=True)
class Request:
    """A request that can be run as it stands."""

    id: str
    prompt_tokens: Sequence[int]
    num_prompt_chars: int
    params: SamplingParams
    seed: int
    sample_index: int
    chunk_chars: int
    max_chunk_delay_s: float | None

    @classmethod
    def from_pb(cls, request: pb.GenerateRequest, model: Model) -> Request:
        """Checks what is asked.

        Raises:
            RequestError: what is wrong, or not done here.
        """
        if request.model not in ("", model.bundle.name):
            raise RequestError(f"model {request.model!r} is not served here; {model.bundle.name} is")
        prompt_tokens = _prompt(request, model)
        given = _given(request.sampling) | _given(request.stopping)
        sample_index = given.pop("sample_index", 0)
        params = SamplingParams(**given)
        for stop in params.stop:
            model.bundle.vocab.encode(stop)  # refuses what no text can hold
        chunk_chars, delay_ms = (
            _output(request.output, name) for name in ("chunk_chars", "max_chunk_delay_ms")
        )
        return cls(
            id=request.request_id,
            prompt_tokens=_started(prompt_tokens, model),
            num_prompt_chars=len(prompt_tokens),
            params=params,
            seed=secrets.randbits(64) if params.seed is None else params.seed,
            sample_index=sample_index,
            chunk_chars=chunk_chars,
            max_chunk_delay_s=None if delay_ms is None else delay_ms / 1e3,
        )

    def rng(self) -> np.random.Generator:
        """Random numbers of its own, so that the text depends on no other stream."""
        return np.random.default_rng([self.seed, self.sample_index])


def _given(message: Any) -> dict[str, Any]:
    """The fields that are done here; others may only say what they mean anyway."""
    given = {field.name: value for field, value in message.ListFields()}
    for name in given.keys() - DONE:
        if given.pop(name) != getattr(OFF, name):
            raise RequestError(f"{name}: not done by this server; leave it out")
    return given


def _prompt(request: pb.GenerateRequest, model: Model) -> list[int]:
    if request.WhichOneof("start") == "prompt_ids":
        tokens = list(request.prompt_ids.ids)
        model.bundle.vocab.decode(tokens)  # refuses what is no token id
    else:
        tokens = model.bundle.vocab.encode(request.prompt).tolist()
    _limited("prompt", len(tokens))
    if model.end_token in tokens:
        raise RequestError("the prompt holds the model's end symbol; leave it out")
    return tokens


def _started(tokens: list[int], model: Model) -> list[int]:
    return tokens if tokens and model.end_token is None else [model.start_token, *tokens]


def _output(output: pb.Output, name: str) -> int | None:
    """A field within its limits, or its default."""
    return _limited(name, getattr(output, name)) if output.HasField(name) else LIMITS[name].default


def _limited(name: str, value: int) -> int:
    limit = LIMITS[name]
    if not limit.low <= value <= limit.high:
        raise RequestError(f"{name} is {value}; it must be {limit.low:g} to {limit.high:g}")
    return value

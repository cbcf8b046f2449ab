"""Bits per character of a text under a stepped model, the text cut into parallel streams.

The cut depends on the text alone, so figures of different precisions and of torch are of the same
predictions. Knows nothing of files or of how a text was split for training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from charrnn.export.stepping import Logits, Stepper, Tokens

MAX_STREAMS = 64
# Every stream starts from the zero state and predicts its first characters badly: shorter texts get fewer
# streams.
MIN_STREAM_LENGTH = 256
# Enough to tell 0.001 bits per character apart between precisions, and seconds even for a large model.
MAX_TOKENS = 2**18


@dataclass(frozen=True)
class Streams:
    """A text cut into B streams of T predictions each."""

    inputs: Tokens  # (B, T)
    targets: Tokens  # (B, T)

    @property
    def num_tokens(self) -> int:
        """Predictions made: B * T."""
        return int(self.targets.size)


def cut(tokens: npt.NDArray[np.integer[Any]]) -> Streams | None:
    """Cut the first ``MAX_TOKENS`` of a text; None if it has fewer than two characters.

    A remainder of fewer than B characters at the end is left out.
    """
    text = np.asarray(tokens[: MAX_TOKENS + 1], dtype=np.int64)
    num_predictions = len(text) - 1
    if num_predictions < 1:
        return None
    num_streams = min(MAX_STREAMS, max(1, num_predictions // MIN_STREAM_LENGTH))
    length = num_predictions // num_streams
    shape = (num_streams, length)
    last = num_streams * length
    return Streams(text[:last].reshape(shape), text[1 : last + 1].reshape(shape))


def bits_per_character(model: Stepper, streams: Streams) -> float:
    """Mean of ``-log2 p(next character)`` over all predictions, summed in double precision."""
    rows = np.arange(len(streams.targets))
    total = 0.0
    for logits, targets in zip(model(streams.inputs), streams.targets.T, strict=True):
        total += _surprise(logits, rows, targets)
    return total / streams.num_tokens / float(np.log(2))


def _surprise(logits: Logits, rows: Tokens, targets: Tokens) -> float:
    """Sum over rows of ``log sum exp(logits) - logits[target]``, in nats."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)  # (B, V)
    return float(np.sum(np.log(np.exp(shifted).sum(axis=1)) - shifted[rows, targets]))

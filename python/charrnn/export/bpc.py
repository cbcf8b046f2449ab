"""Bits per character of a text under a stepped model, the text cut into parallel streams.

Documents are not cut: a stream holds whole ones. The cut depends on the text alone, so figures of different
precisions and of torch are of the same predictions. Knows nothing of files or of how a text was split for
training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from charrnn.export.stepping import Logits, Stepper, Tokens

_Text = npt.NDArray[np.integer[Any]]

MAX_STREAMS = 64
# Every stream starts from the zero state and predicts its first characters badly: shorter texts get fewer
# streams.
MIN_STREAM_LENGTH = 256
# Enough to tell 0.001 bits per character apart between precisions, and seconds even for a large model.
MAX_TOKENS = 2**18
# Targets that are not there: streams of whole documents differ in length.
PADDING = -1


@dataclass(frozen=True)
class Streams:
    """A text cut into B streams of up to T predictions each, ``PADDING`` behind the shorter ones."""

    inputs: Tokens  # (B, T)
    targets: Tokens  # (B, T)

    @property
    def num_tokens(self) -> int:
        """Predictions made: B * T but for the padding."""
        return int(np.count_nonzero(self.targets != PADDING))


def cut(tokens: _Text, end_token: int | None = None) -> Streams | None:
    """Cut the first ``MAX_TOKENS`` of a text; None if there is nothing to predict in it.

    A text without documents needs two characters, and a remainder of fewer than B at its end is left out. Of
    documents, each with ``end_token`` behind it, whole ones are taken, and their first characters predicted
    too, from the end token.
    """
    if end_token is not None:
        return _cut_documents(np.asarray(tokens[:MAX_TOKENS], dtype=np.int64), end_token)
    text = np.asarray(tokens[: MAX_TOKENS + 1], dtype=np.int64)
    num_predictions = len(text) - 1
    if num_predictions < 1:
        return None
    num_streams = min(MAX_STREAMS, max(1, num_predictions // MIN_STREAM_LENGTH))
    length = num_predictions // num_streams
    shape = (num_streams, length)
    last = num_streams * length
    return Streams(text[:last].reshape(shape), text[1 : last + 1].reshape(shape))


def _cut_documents(text: Tokens, end_token: int) -> Streams | None:
    if len(text) == 0:
        return None
    ends = np.flatnonzero(text == end_token) + 1
    if len(ends) == 0:  # of one that is longer than all that is read
        ends = np.array([len(text)])
    text = text[: ends[-1]]
    num_streams = min(MAX_STREAMS, max(1, len(text) // MIN_STREAM_LENGTH))
    wanted = len(text) * np.arange(1, num_streams + 1) // num_streams
    stops = np.unique(ends[np.searchsorted(ends, wanted)])
    starts = np.concatenate(([0], stops[:-1]))
    before = np.concatenate(([end_token], text[:-1]))
    rows = [(before[start:stop], text[start:stop]) for start, stop in zip(starts, stops, strict=True)]
    shape = (len(rows), int((stops - starts).max()))
    inputs, targets = np.full(shape, end_token, np.int64), np.full(shape, PADDING, np.int64)
    for row, (read, predicted) in enumerate(rows):
        inputs[row, : len(read)], targets[row, : len(read)] = read, predicted
    return Streams(inputs, targets)


def bits_per_character(model: Stepper, streams: Streams) -> float:
    """Mean of ``-log2 p(next character)`` over all predictions, summed in double precision."""
    total = 0.0
    for logits, targets in zip(model(streams.inputs), streams.targets.T, strict=True):
        total += _surprise(logits, targets)
    return total / streams.num_tokens / float(np.log(2))


def _surprise(logits: Logits, targets: Tokens) -> float:
    """Sum over rows with a target of ``log sum exp(logits) - logits[target]``, in nats."""
    rows = np.flatnonzero(targets != PADDING)
    there = logits[rows]
    shifted = there.astype(np.float64) - there.max(axis=1, keepdims=True)  # (B, V)
    return float(np.sum(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(rows)), targets[rows]]))

"""How well a model predicts from a zero state: the loss of windows, and of the k-th symbol after it.

What a carried state is worth shows in the difference. Knows nothing of runs or files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from charrnn.training.evaluation import Loss, document_sums
from charrnn.training.model import CharRNN
from charrnn.training.splits import Tokens

# Numbers in the largest tensor, the logits of a piece (B, T, V): 64 MB.
_MAX_NUMBERS = 2**24
_PIECE = 100
# As far as the loss by position looks, where the text is long enough for several windows of it.
MAX_POSITIONS = 1000
_MIN_WINDOWS = 8


@dataclass(frozen=True)
class Bucket:
    """Mean loss of the ``first`` to the ``last`` symbol after a zero state, counted from 1."""

    first: int
    last: int
    loss: Loss


def cold_loss(model: CharRNN, tokens: Tokens, window: int) -> Loss:
    """Predict every token but the first, in windows of ``window`` symbols, each from the zero state.

    Raises:
        ValueError: fewer than two tokens.
    """
    sums, counts = by_position(model, tokens, window)
    return Loss(float(sums.sum() / counts.sum()), int(counts.sum()))


def loss_by_position(model: CharRNN, tokens: Tokens, end_token: int | None = None) -> list[Bucket]:
    """Loss after 1, 2, 3-4, 5-8, ... symbols from a zero state, up to ``MAX_POSITIONS``.

    Of texts too short for eight such windows, up to an eighth of their length. Of documents, each with
    ``end_token`` behind it, positions are those in a document.

    Raises:
        ValueError: fewer than two tokens.
    """
    if end_token is None:
        length = max(1, min(MAX_POSITIONS, (len(tokens) - 1) // _MIN_WINDOWS))
        sums, counts = by_position(model, tokens, length)
    else:
        sums, counts = document_sums(model, tokens, end_token)
        length = min(MAX_POSITIONS, len(sums))
    return [
        Bucket(first, last, Loss(float(sums[at].sum() / counts[at].sum()), int(counts[at].sum())))
        for first, last in _ranges(length)
        for at in [slice(first - 1, last)]
    ]


def by_position(
    model: CharRNN, tokens: Tokens, window: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Summed nats and number of predictions of each position in a window, each ``(window,)``.

    Raises:
        ValueError: fewer than two tokens.
    """
    num_predictions = len(tokens) - 1
    if num_predictions < 1:
        raise ValueError(f"a loss needs two tokens or more, not {len(tokens)}")
    window = min(window, num_predictions)
    num_whole = num_predictions // window
    sums, counts = np.zeros(window), np.full(window, num_whole)
    inputs = np.asarray(tokens[: num_whole * window]).reshape(num_whole, window)
    targets = np.asarray(tokens[1 : num_whole * window + 1]).reshape(num_whole, window)
    was_training = model.training
    model.eval()
    try:
        for rows in _batches(num_whole, model.shape.vocab_size):
            sums += _sums(model, inputs[rows], targets[rows])
        if rest := num_predictions - num_whole * window:
            sums[:rest] += _sums(model, tokens[None, -rest - 1 : -1], tokens[None, -rest:])
            counts[:rest] += 1
    finally:
        model.train(was_training)
    return sums, counts


@torch.inference_mode()
def _sums(model: CharRNN, inputs: Tokens, targets: Tokens) -> npt.NDArray[np.float64]:
    """Nats of each column, summed over rows: ``(B, T)`` -> ``(T,)``."""
    device = model.head.weight.device
    state = model.zero_state(len(inputs))
    sums = []
    for at in range(0, inputs.shape[1], _PIECE):
        piece, expected = (_on(part[:, at : at + _PIECE], device) for part in (inputs, targets))
        logits, state = model(piece, state)  # (B, T, V)
        nats = F.cross_entropy(logits.transpose(1, 2), expected, reduction="none")  # (B, T)
        sums.append(nats.sum(0, dtype=torch.float64).cpu().numpy())
    return np.concatenate(sums)


def _batches(num_windows: int, vocab_size: int) -> Iterator[slice]:
    size = max(1, min(256, _MAX_NUMBERS // (_PIECE * vocab_size)))
    return (slice(at, at + size) for at in range(0, num_windows, size))


def _on(tokens: npt.NDArray[np.integer[Any]], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(tokens, np.int64)).to(device)


def _ranges(length: int) -> Iterator[tuple[int, int]]:
    """1-1, 2-2, 3-4, 5-8, ... and what is left of ``length``."""
    first = last = 1
    while first <= length:
        yield first, min(last, length)
        first, last = last + 1, last * 2

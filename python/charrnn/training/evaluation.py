"""How well a model predicts a text: mean loss with the state carried through each of its streams.

Knows nothing of training, files or splits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from charrnn.training.documents import PADDING, DocumentWindows
from charrnn.training.model import CharRNN, State
from charrnn.training.splits import Tokens
from charrnn.training.windows import Windows

MAX_STREAMS = 32
MAX_DOCUMENTS = 64
# A stream starts from the zero state and predicts its first symbols badly: shorter texts get fewer streams.
MIN_STREAM_LENGTH = 1000
_WINDOW = 200


@dataclass(frozen=True)
class Loss:
    """Mean cross-entropy over ``num_tokens`` predictions."""

    nats: float
    num_tokens: int

    @property
    def bpc(self) -> float:
        """Bits per character, or per byte."""
        return self.nats / math.log(2)


def evaluate(
    model: CharRNN, tokens: Tokens, *, num_streams: int | None = None, end_token: int | None = None
) -> Loss:
    """Predict every token of a text but the first from all that stands before it in its stream.

    The text is cut into ``num_streams`` contiguous streams of equal length, each from the zero state; what is
    left over continues the last one. None takes up to 32, of 1000 tokens or more. Sums are in double
    precision. The model's mode (training or not) is left as it was. Of documents, each with ``end_token``
    behind it, every token is predicted from what stands before it in its document, and no streams are cut.

    Raises:
        ValueError: fewer than two tokens.
    """
    if end_token is not None:
        sums, counts = document_sums(model, tokens, end_token)
        return Loss(float(sums.sum() / counts.sum()), int(counts.sum()))
    num_predictions = len(tokens) - 1
    if num_predictions < 1:
        raise ValueError(f"a loss needs two tokens or more, not {len(tokens)}")
    num_streams = num_streams or min(MAX_STREAMS, max(1, num_predictions // MIN_STREAM_LENGTH))
    num_streams = min(num_streams, num_predictions)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            total, state = _sum(model, Windows(tokens, num_streams, _WINDOW), model.zero_state(num_streams))
            rest = num_predictions // num_streams * num_streams
            if rest < num_predictions:
                last_row = tuple(tensor[:, -1:].contiguous() for tensor in state)
                total += _sum(model, Windows(tokens[rest:], 1, _WINDOW), last_row)[0]
    finally:
        model.train(was_training)
    return Loss(total / num_predictions, num_predictions)


def document_sums(
    model: CharRNN, tokens: Tokens, end_token: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Summed nats and number of predictions of the first, second ... symbol of documents, each ``(T,)``.

    ``tokens`` are documents one after another, each with ``end_token`` behind it. T is the greatest length.
    """
    windows = DocumentWindows(tokens, end_token, batch_size=MAX_DOCUMENTS, bptt=_WINDOW)
    sums, counts = np.zeros(windows.longest), np.zeros(windows.longest, np.int64)
    device, was_training = model.head.weight.device, model.training
    at, state = 0, model.zero_state(MAX_DOCUMENTS)
    model.eval()
    try:
        with torch.inference_mode():
            for index in range(len(windows)):
                window = windows.window(0, index)
                if window.is_first:
                    at, state = 0, model.zero_state(MAX_DOCUMENTS)
                logits, state = model(window.inputs.to(device), state)  # (B, T, V)
                nats = F.cross_entropy(logits.transpose(1, 2), window.targets.to(device), reduction="none")
                end = at + window.inputs.shape[1]
                sums[at:end] += nats.sum(0, dtype=torch.float64).cpu().numpy()
                counts[at:end] += (window.targets != PADDING).sum(0).numpy()
                at = end
    finally:
        model.train(was_training)
    return sums, counts


def _sum(model: CharRNN, windows: Windows, state: State) -> tuple[float, State]:
    """Summed nats over all windows, and the state after them."""
    device = model.head.weight.device
    total = 0.0
    for index in range(len(windows)):
        inputs, targets = windows[index]
        logits, state = model(inputs.to(device), state)  # (B, T, V)
        losses = F.cross_entropy(logits.flatten(0, 1), targets.to(device).flatten(), reduction="none")
        total += float(losses.sum(dtype=torch.float64))
    return total, state

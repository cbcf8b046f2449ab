"""How well a model predicts a text: mean loss with the state carried from end to end.

Knows nothing of training, files or splits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from charrnn.training.model import CharRNN, State
from charrnn.training.splits import Tokens
from charrnn.training.windows import Windows

MAX_STREAMS = 32
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


def evaluate(model: CharRNN, tokens: Tokens, *, num_streams: int | None = None) -> Loss:
    """Predict every token of a text but the first from all that stands before it in its stream.

    The text is cut into ``num_streams`` contiguous streams of equal length, each from the zero state; what is
    left over continues the last one. None takes up to 32, of 1000 tokens or more. Sums are in double
    precision. The model's mode (training or not) is left as it was.

    Raises:
        ValueError: fewer than two tokens.
    """
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

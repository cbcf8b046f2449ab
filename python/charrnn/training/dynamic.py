"""Dynamic evaluation: the model goes on learning from what it has predicted, within one text.

Krause, Kahembwe, Murray & Renals 2018, "Dynamic evaluation of neural sequence models": gradients are divided
by their root mean square over the training text, and weights are drawn back to the trained ones, those with
large gradients faster. Every symbol is predicted before it is learnt from, so this is a fair loss of a model
that may adapt. Knows nothing of runs or files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from charrnn.training.evaluation import Loss
from charrnn.training.model import CharRNN, State
from charrnn.training.splits import Tokens


@dataclass(frozen=True)
class DynamicSettings:
    """How a model adapts.

    Args:
        lr: step, in units of a gradient divided by its root mean square.
        decay: share of the way back to the trained weights in each step, for a weight of mean gradient.
        segment: symbols that are predicted, then learnt from.
        num_measured: segments of the training text over which gradients are measured.
        epsilon: added to the root mean square, as a share of its mean over all weights.
    """

    lr: float = 2e-4
    decay: float = 2e-3
    segment: int = 20
    num_measured: int = 500
    epsilon: float = 0.1


def dynamic_loss(
    model: CharRNN,
    tokens: Tokens,
    train: Tokens,
    settings: DynamicSettings | None = None,
    end_token: int | None = None,
) -> Loss:
    """Predict every token but the first, in one stream, learning after each segment. A copy learns.

    Of documents, each with ``end_token`` behind it, all tokens are predicted, each document from the zero
    state.

    Raises:
        ValueError: fewer than two tokens in either text.
    """
    for text in (tokens, train):
        if len(text) < 2:
            raise ValueError(f"a loss needs two tokens or more, not {len(text)}")
    settings = settings or DynamicSettings()
    learner = _Adapting(model, train, settings)
    total, num_tokens = 0.0, 0
    for text in [tokens] if end_token is None else _documents(tokens, end_token):
        state = learner.model.zero_state(1)
        for at in range(0, len(text) - 1, settings.segment):
            loss, state = learner.predict(text[at : at + settings.segment + 1], state)
            num_targets = min(settings.segment, len(text) - 1 - at)
            total, num_tokens = total + loss.item() * num_targets, num_tokens + num_targets
            learner.learn(loss)
    return Loss(total / num_tokens, num_tokens)


def _documents(tokens: Tokens, end_token: int) -> Iterator[Tokens]:
    """Each document with the end token before and behind it."""
    ends = np.flatnonzero(tokens == end_token)
    for start, end in zip([0, *(ends[:-1] + 1)], ends, strict=True):
        yield np.insert(tokens[start : end + 1], 0, end_token)


class _Adapting:
    """A copy of a model without dropout, its gradients' usual size, and the weights it comes back to."""

    def __init__(self, model: CharRNN, train: Tokens, settings: DynamicSettings) -> None:
        self.model = CharRNN(dataclasses.replace(model.shape, dropout=0.0)).to(model.head.weight.device)
        self.model.load_state_dict(model.state_dict())
        self._settings = settings
        self._parameters = list(self.model.parameters())
        self._trained = [parameter.detach().clone() for parameter in self._parameters]
        roots = self._measure(train)
        mean = float(torch.cat([root.flatten() for root in roots]).mean()) or 1.0
        self._scales = [settings.lr / (root + settings.epsilon * mean) for root in roots]
        # A weight goes back all the way at most.
        self._decays = [(settings.decay * root / mean).clamp_(max=1.0) for root in roots]

    def predict(self, tokens: Tokens, state: State) -> tuple[Tensor, State]:
        """Mean loss of every token but the first, and the state after them, cut off from what made it."""
        ids = torch.from_numpy(np.asarray(tokens, np.int64)).to(self.model.head.weight.device)
        logits, state = self.model(ids[None, :-1], state)  # (1, T, V)
        return F.cross_entropy(logits[0], ids[1:]), tuple(tensor.detach() for tensor in state)

    def learn(self, loss: Tensor) -> None:
        """One step against the gradient and back towards the trained weights."""
        gradients = torch.autograd.grad(loss, self._parameters)
        with torch.no_grad():
            for parameter, gradient, trained, scale, decay in zip(
                self._parameters, gradients, self._trained, self._scales, self._decays, strict=True
            ):
                back = (trained - parameter).mul_(decay)
                parameter.add_(back.addcmul_(gradient, scale, value=-1.0))

    def _measure(self, train: Tokens) -> list[Tensor]:
        """Root mean square of each weight's gradient over segments spread evenly over the training text."""
        length = self._settings.segment
        last = max(0, len(train) - length - 1)
        starts = np.unique(np.linspace(0, last, self._settings.num_measured).astype(np.int64))
        squares = [torch.zeros_like(parameter) for parameter in self._parameters]
        for start in starts:
            loss, _ = self.predict(train[start : start + length + 1], self.model.zero_state(1))
            for square, gradient in zip(squares, torch.autograd.grad(loss, self._parameters), strict=True):
                square.addcmul_(gradient, gradient)
        return [square.div_(len(starts)).sqrt_() for square in squares]

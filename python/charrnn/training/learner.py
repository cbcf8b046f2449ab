"""One window of text in, one step of the weights out: model, optimiser and the recurrent state they carry.

Everything that decides the next step is in ``weights`` and ``tensors``. Knows neither files nor text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charrnn.errors import CheckpointError, ConfigError
from charrnn.training.config import TrainConfig
from charrnn.training.model import CharRNN, ModelShape, State
from charrnn.training.optimizers import make_optimizer


@dataclass(frozen=True)
class Learnt:
    """What one window told. ``is_applied`` is False if a number was not finite; then nothing has changed."""

    nats: float
    gradient_norm: float
    is_applied: bool


def model_shape(config: TrainConfig, vocab_size: int) -> ModelShape:
    """The shape of the model that a configuration asks for."""
    return ModelShape(
        vocab_size, config.cell, config.num_layers, config.hidden_size, config.embedding_dim, config.dropout
    )


def choose_device(name: str) -> torch.device:
    """The device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ConfigError: a GPU is asked for that is not there.
    """
    has_gpu = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if has_gpu else "cpu")
    kind, _, index = name.partition(":")
    count = torch.cuda.device_count() if has_gpu else 0
    if kind == "cuda" and int(index or 0) >= count:
        raise ConfigError(f"device is {name!r} and torch sees {count} GPUs: give --device cpu")
    return torch.device(name)


class Learner:
    """Trains a model window by window; seeds torch's random numbers when it is made."""

    def __init__(self, config: TrainConfig, vocab_size: int) -> None:
        torch.manual_seed(config.seed)
        self.device = choose_device(config.device)
        self.model = CharRNN(model_shape(config, vocab_size)).to(self.device)
        self.state: State = self.model.zero_state(config.batch_size)
        self._batch_size, self._clip_norm = config.batch_size, config.clip_norm
        self._parameters = dict(self.model.named_parameters())
        self._optimizer = make_optimizer(self._parameters, config)

    def reset_state(self) -> None:
        """Forget the text read so far."""
        self.state = self.model.zero_state(self._batch_size)

    def learn(self, inputs: Tensor, targets: Tensor, lr: float) -> Learnt:
        """Predict ``targets`` ``(B, T)`` from ``inputs`` ``(B, T)`` after the carried state, and improve."""
        logits, state = self.model(inputs.to(self.device), self.state)  # (B, T, V)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.to(self.device).flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self._parameters.values(), self._clip_norm)
        learnt = _judge(loss.item(), norm.item())
        if learnt.is_applied:
            self._optimizer.step(lr)
            self.state = tuple(tensor.detach() for tensor in state)
        self._optimizer.forget_gradients()
        return learnt

    def is_finite(self) -> bool:
        """Whether every weight is a number."""
        return all(bool(weight.isfinite().all()) for weight in self._parameters.values())

    def weights(self) -> dict[str, Tensor]:
        """The model's weights by name."""
        return {name: weight.detach().contiguous() for name, weight in self._parameters.items()}

    def tensors(self) -> dict[str, Tensor]:
        """All tensors besides the weights that decide what comes next."""
        found = {f"state.{index}": tensor for index, tensor in enumerate(self.state)}
        found["rng.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            found["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        found["num_steps"] = torch.tensor(self._optimizer.num_steps)
        return {name: tensor.contiguous() for name, tensor in (found | self._optimizer.moments).items()}

    def restore(self, weights: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
        """Become what ``weights()`` and ``tensors()`` were taken from.

        Raises:
            CheckpointError: they are of another model.
        """
        try:
            self.model.load_state_dict(dict(weights))
            self.state = tuple(tensors[f"state.{i}"].to(self.device) for i in range(len(self.state)))
            self._optimizer.restore(int(tensors["num_steps"]), tensors)
            torch.set_rng_state(tensors["rng.cpu"])
        except (RuntimeError, KeyError) as error:
            raise CheckpointError(f"the checkpoint is of another model: {error}") from error
        if self.device.type == "cuda" and "rng.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng.cuda"], self.device)


def _judge(nats: float, norm: float) -> Learnt:
    return Learnt(nats, norm, math.isfinite(nats) and math.isfinite(norm))

"""One window of text in, one step of the weights out: model, optimiser and the recurrent state they carry.

Everything that decides the next step is in ``weights`` and ``tensors``. Knows neither files nor text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charrnn.errors import CheckpointError, ConfigError
from charrnn.training.config import TrainConfig
from charrnn.training.distributed import World
from charrnn.training.model import CharRNN, ModelShape, State
from charrnn.training.optimizers import make_optimizer
from charrnn.training.precision import LossScale, check_products, compiled, products


@dataclass(frozen=True)
class Learnt:
    """What one window told, the same on all ranks.

    ``is_applied`` is False if a number was not finite; then nothing has changed. ``is_overflow`` then says
    that this is the doing of float16, whose scale has been lowered, and not of the model.
    """

    nats: float
    gradient_norm: float
    is_applied: bool
    is_overflow: bool = False


def model_shape(config: TrainConfig, vocab_size: int) -> ModelShape:
    """The shape of the model that a configuration asks for."""
    return ModelShape(
        vocab_size, config.cell, config.num_layers, config.hidden_size, config.embedding_dim, config.dropout
    )


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; each process of a machine has its own GPU.

    Raises:
        ConfigError: a GPU is asked for that is not there.
    """
    has_gpu = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if has_gpu else "cpu"
    kind, _, index = name.partition(":")
    if kind == "cpu":
        return torch.device(name)
    if index and local_rank:
        raise ConfigError(f"device is {name!r} for several processes: give cuda, and each takes its own")
    wanted, count = int(index or local_rank), torch.cuda.device_count() if has_gpu else 0
    if wanted >= count:
        which = f"{name!r}, GPU {wanted} for this process," if local_rank and not index else repr(name)
        raise ConfigError(f"device is {which} and torch sees {count} GPUs: give --device cpu")
    return torch.device(kind, wanted)


class Learner:
    """Trains a model window by window; seeds torch's random numbers when it is made.

    Of several processes each has the same weights and its own rows of every window: its own part of the
    carried state, and its own dropout, seeded with ``seed`` plus its rank.

    Raises:
        ConfigError: the device, the type of the products or compilation is not to be had here.
    """

    def __init__(self, config: TrainConfig, vocab_size: int, world: World | None = None) -> None:
        torch.manual_seed(config.seed)
        self._world = world or World()
        self.device = choose_device(config.device, self._world.local_rank)
        self.model = CharRNN(model_shape(config, vocab_size)).to(self.device)
        self._batch_size, self._clip_norm = config.batch_size // self._world.size, config.clip_norm
        self.state: State = self.model.zero_state(self._batch_size)
        self._parameters = dict(self.model.named_parameters())
        self._optimizer = make_optimizer(self._parameters, config)
        self._scale = LossScale(config.dtype)
        self._products = partial(products, config, self.device)
        check_products(config, self.model, torch.zeros(1, 1, dtype=torch.int64, device=self.device))
        self._forward = compiled(self.model, config, self.device)
        if self._world.rank:
            torch.manual_seed(config.seed + self._world.rank)

    def reset_state(self) -> None:
        """Forget the text read so far."""
        self.state = self.model.zero_state(self._batch_size)

    def learn(self, inputs: Tensor, targets: Tensor, lr: float) -> Learnt:
        """Predict ``targets`` ``(B, T)`` from ``inputs`` ``(B, T)`` after the carried state, and improve.

        Targets below 0 are padding.
        """
        loss, state = self._loss(inputs, targets)
        (loss * self._scale.value).backward()  # type: ignore[no-untyped-call]
        gradients, nats = self._optimizer.gradients(), loss.detach()
        if self._world.size > 1:
            self._world.average([*gradients, nats], float((self._world.rows(targets) >= 0).sum()))
        self._scale.unscale(gradients)
        norm = nn.utils.clip_grad_norm_(self._parameters.values(), self._clip_norm)
        learnt = self._judge(*torch.stack([nats, norm]).tolist())
        if learnt.is_applied:
            self._optimizer.step(lr)
            self.state = tuple(tensor.detach().float() for tensor in state)
        self._optimizer.forget_gradients()
        return learnt

    def _loss(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, State]:
        """Mean over this rank's rows, and the state after them."""
        inputs, targets = (self._world.rows(rows).to(self.device) for rows in (inputs, targets))
        with self._products():
            logits, state = self._forward(inputs, self.state)  # (B, T, V)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten()), state

    def _judge(self, nats: float, norm: float) -> Learnt:
        if math.isfinite(nats) and math.isfinite(norm):
            self._scale.applied()
            return Learnt(nats, norm, is_applied=True)
        is_overflow = math.isfinite(nats) and self._scale.overflowed()
        return Learnt(nats, norm, is_applied=False, is_overflow=is_overflow)

    def agree(self) -> None:
        """Take the weights of rank 0."""
        self._world.spread([weight.detach() for weight in self._parameters.values()])

    def is_finite(self) -> bool:
        """Whether every weight is a number."""
        return all(bool(weight.isfinite().all()) for weight in self._parameters.values())

    def weights(self) -> dict[str, Tensor]:
        """The model's weights by name."""
        return {name: weight.detach().contiguous() for name, weight in self._parameters.items()}

    def tensors(self) -> dict[str, Tensor]:
        """All tensors besides the weights that decide what comes next, of all ranks; all ask together."""
        found = self._optimizer.moments | self._scale.tensors()
        found["num_steps"] = torch.tensor(self._optimizer.num_steps)
        for index, tensor in enumerate(self.state):
            found[f"state.{index}"] = torch.cat(self._world.gather(tensor), dim=1)  # (L, B, H)
        for kind, generator in self._generators().items():
            for rank, tensor in enumerate(self._world.gather(generator)):
                found[_rng(kind, rank)] = tensor
        return {name: tensor.contiguous() for name, tensor in found.items()}

    def _generators(self) -> dict[str, Tensor]:
        """The states of the random number generators that dropout draws from."""
        found = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            found["cuda"] = torch.cuda.get_rng_state(self.device)
        return found

    def restore(self, weights: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
        """Become what ``weights()`` and ``tensors()`` were taken from, by as many ranks or by others.

        A rank that was not there before goes on with the random numbers it has.

        Raises:
            CheckpointError: they are of another model.
        """
        try:
            self.model.load_state_dict(dict(weights))
            states = (tensors[f"state.{index}"] for index in range(len(self.state)))
            # Cloned: a file's tensors lie anywhere, and products of unaligned memory differ in the last bit.
            self.state = tuple(self._world.rows(state, dim=1).to(self.device).clone() for state in states)
            self._optimizer.restore(int(tensors["num_steps"]), tensors)
            self._scale.restore(tensors)
            self._restore_generators(tensors)
        except (RuntimeError, KeyError) as error:
            raise CheckpointError(f"the checkpoint is of another model: {error}") from error

    def _restore_generators(self, tensors: Mapping[str, Tensor]) -> None:
        rank = self._world.rank
        if (state := tensors.get(_rng("cpu", rank))) is not None:
            torch.set_rng_state(state)
        if self.device.type == "cuda" and (state := tensors.get(_rng("cuda", rank))) is not None:
            torch.cuda.set_rng_state(state, self.device)


def _rng(kind: str, rank: int) -> str:
    """Name of a generator's state in a checkpoint."""
    return f"rng.{kind}.{rank}" if rank else f"rng.{kind}"

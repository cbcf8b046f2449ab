"""AdamW, RMSProp and SGD with momentum, their state in plain sight of the checkpoint.

torch's own optimisers load the compiler, torch._dynamo, when they are made: several seconds at the start of
every run for what takes a hundredth of a step here. The arithmetic is theirs; the kernels are the ones that
they call. Knows nothing of models or of where gradients come from.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from charrnn.training.config import TrainConfig

EPSILON = 1e-8


class Optimizer:
    """Moments by name; ``num_steps`` counts the steps that were applied.

    ``step`` takes a share ``lr * weight_decay`` off every matrix, but no bias, and then does what the
    subclass is named after.

    Args:
        parameters: what to improve, by name.
        config: ``beta1``, ``beta2`` and ``weight_decay``.
    """

    MOMENTS: tuple[str, ...]

    def __init__(self, parameters: Mapping[str, Tensor], config: TrainConfig) -> None:
        self.num_steps = 0
        self.moments = {
            f"{moment}.{name}": torch.zeros_like(parameter, memory_format=torch.contiguous_format)
            for name, parameter in parameters.items()
            for moment in self.MOMENTS
        }
        self._parameters = list(parameters.values())
        self._decayed = [parameter for parameter in self._parameters if parameter.ndim > 1]
        self._by_kind = {
            moment: [self.moments[f"{moment}.{name}"] for name in parameters] for moment in self.MOMENTS
        }
        self._beta1, self._beta2, self._weight_decay = config.beta1, config.beta2, config.weight_decay

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Move every parameter against its gradient."""
        self.num_steps += 1
        if self._weight_decay:
            torch._foreach_mul_(self._decayed, 1.0 - lr * self._weight_decay)
        self._move(lr, self.gradients())

    def gradients(self) -> list[Tensor]:
        """The gradients of all parameters, in their order."""
        found = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        assert len(found) == len(self._parameters)
        return found

    def _move(self, lr: float, gradients: list[Tensor]) -> None:
        raise NotImplementedError

    def forget_gradients(self) -> None:
        """Leave no gradient behind for the next step to add to."""
        for parameter in self._parameters:
            parameter.grad = None

    def restore(self, num_steps: int, moments: Mapping[str, Tensor]) -> None:
        """Become what ``num_steps`` and ``moments`` were taken from.

        Raises:
            KeyError, RuntimeError: they are of another model or optimiser.
        """
        self.num_steps = num_steps
        for name, tensor in self.moments.items():
            tensor.copy_(moments[name])


class AdamW(Optimizer):
    """Loshchilov & Hutter 2019, "Decoupled weight decay regularization"."""

    MOMENTS = ("exp_avg", "exp_avg_sq")

    def _move(self, lr: float, gradients: list[Tensor]) -> None:
        """One kernel for everything: the weights cross the memory once instead of eight times."""
        step = torch.tensor(float(self.num_steps), device=self._parameters[0].device)
        torch._fused_adamw_(
            self._parameters,
            gradients,
            self._by_kind["exp_avg"],
            self._by_kind["exp_avg_sq"],
            [],
            [step] * len(gradients),
            lr=lr,
            beta1=self._beta1,
            beta2=self._beta2,
            weight_decay=0.0,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )


class RMSProp(Optimizer):
    """Tieleman & Hinton 2012, as in torch and in Karpathy's char-rnn: no momentum, not centred."""

    MOMENTS = ("square_avg",)

    def _move(self, lr: float, gradients: list[Tensor]) -> None:
        squares = self._by_kind["square_avg"]
        torch._foreach_mul_(squares, self._beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1.0 - self._beta2)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_add_(roots, EPSILON)
        torch._foreach_addcdiv_(self._parameters, gradients, roots, value=-lr)


class SGD(Optimizer):
    """Gradient descent with the momentum of torch: the rate of a step also scales the steps before it."""

    MOMENTS = ("momentum_buffer",)

    def _move(self, lr: float, gradients: list[Tensor]) -> None:
        buffers = self._by_kind["momentum_buffer"]
        torch._foreach_mul_(buffers, self._beta1)
        torch._foreach_add_(buffers, gradients)
        torch._foreach_add_(self._parameters, buffers, alpha=-lr)


_OPTIMIZERS: dict[str, type[Optimizer]] = {"adamw": AdamW, "rmsprop": RMSProp, "sgd": SGD}


def make_optimizer(parameters: Mapping[str, Tensor], config: TrainConfig) -> Optimizer:
    """The optimiser that a configuration asks for."""
    return _OPTIMIZERS[config.optimizer](parameters, config)

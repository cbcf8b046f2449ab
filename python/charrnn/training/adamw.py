"""AdamW (Loshchilov & Hutter 2019, "Decoupled weight decay regularization"), with its state in plain sight.

torch's own optimisers load the compiler, torch._dynamo, when they are made: several seconds at the start of
every run for what takes a hundredth of a step here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

EPSILON = 1e-8


class AdamW:
    """Moments by parameter name; ``num_steps`` counts the steps that were applied.

    Args:
        parameters: what to improve, by name. Matrices are decayed, biases are not.
        betas: memory of the first and the second moment.
        weight_decay: share of a weight, times the learning rate, that is taken off each step.
    """

    def __init__(
        self, parameters: Mapping[str, Tensor], *, betas: tuple[float, float], weight_decay: float
    ) -> None:
        self._parameters = parameters
        self._betas, self._weight_decay = betas, weight_decay
        self.num_steps = 0
        self.moments = {
            f"{moment}.{name}": torch.zeros_like(parameter, memory_format=torch.contiguous_format)
            for name, parameter in parameters.items()
            for moment in ("exp_avg", "exp_avg_sq")
        }

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Move every parameter against its gradient."""
        self.num_steps += 1
        beta1, beta2 = self._betas
        step_size = lr / (1.0 - beta1**self.num_steps)
        root_of_correction = math.sqrt(1.0 - beta2**self.num_steps)
        for name, parameter in self._parameters.items():
            gradient = parameter.grad
            assert gradient is not None
            mean, square = self.moments[f"exp_avg.{name}"], self.moments[f"exp_avg_sq.{name}"]
            mean.lerp_(gradient, 1.0 - beta1)
            square.mul_(beta2).addcmul_(gradient, gradient, value=1.0 - beta2)
            if parameter.ndim > 1:
                parameter.mul_(1.0 - lr * self._weight_decay)
            parameter.addcdiv_(mean, square.sqrt().div_(root_of_correction).add_(EPSILON), value=-step_size)

    def forget_gradients(self) -> None:
        """Leave no gradient behind for the next step to add to."""
        for parameter in self._parameters.values():
            parameter.grad = None

    def restore(self, num_steps: int, moments: Mapping[str, Tensor]) -> None:
        """Become what ``num_steps`` and ``moments`` were taken from.

        Raises:
            KeyError, RuntimeError: they are of another model.
        """
        self.num_steps = num_steps
        for name, tensor in self.moments.items():
            tensor.copy_(moments[name])

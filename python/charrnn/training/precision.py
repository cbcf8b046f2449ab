"""How exactly numbers are computed: type of the products, scale of a float16 loss, determinism, compilation.

Knows devices and settings, not what is learnt.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from charrnn.errors import ConfigError
from charrnn.training.config import TrainConfig
from charrnn.training.model import CharRNN

# Powers of two, so that scaling itself loses nothing.
_FIRST_SCALE, _GROW_AFTER = 2.0**16, 2000
_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


def products(config: TrainConfig, device: torch.device) -> AbstractContextManager[object]:
    """While entered, matrix products are made in the type that is asked for; weights stay float32."""
    if config.dtype == "float32":
        return nullcontext()
    return torch.autocast(device.type, getattr(torch, config.dtype))


def check_products(config: TrainConfig, model: CharRNN, inputs: Tensor) -> None:
    """Try one step in the type of the products; no random number is drawn.

    Raises:
        ConfigError: torch cannot do it on this device.
    """
    if config.dtype == "float32":
        return
    was_training = model.training
    model.eval()
    try:
        with products(config, inputs.device):
            logits, _ = model(inputs, model.zero_state(len(inputs)))
        logits.float().sum().backward()
    except RuntimeError as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise ConfigError(
            f"dtype is {config.dtype!r}, with which torch cannot train this {config.cell} on "
            f"{inputs.device.type} ({reason}): give --dtype float32"
        ) from error
    finally:
        model.train(was_training)
        model.zero_grad(set_to_none=True)


class LossScale:
    """Factor of a float16 loss, lest its gradients underflow (Micikevicius et al. 2018).

    It is halved when a gradient overflows and doubled after 2000 steps without; other types need none.
    """

    def __init__(self, dtype: str) -> None:
        self.value = _FIRST_SCALE if dtype == "float16" else 1.0
        self._is_used = dtype == "float16"
        self._num_good = 0

    def unscale(self, gradients: list[Tensor]) -> None:
        """Take the factor out of gradients again."""
        if self.value != 1.0:
            torch._foreach_mul_(gradients, 1.0 / self.value)

    def applied(self) -> None:
        """A step had finite gradients."""
        self._num_good += 1
        if self._is_used and self._num_good >= _GROW_AFTER:
            self.value, self._num_good = self.value * 2.0, 0

    def overflowed(self) -> bool:
        """A gradient was not finite: whether that may be the factor's doing; if so it is halved."""
        if self.value <= 1.0:
            return False
        self.value, self._num_good = self.value / 2.0, 0
        return True

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint; empty where no scale is used."""
        if not self._is_used:
            return {}
        return {"loss_scale": torch.tensor([self.value, self._num_good], dtype=torch.float64)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Become what ``tensors()`` was taken from."""
        if self._is_used:
            value, num_good = tensors["loss_scale"].tolist()
            self.value, self._num_good = value, int(num_good)


@contextmanager
def deterministic(is_asked: bool) -> Iterator[None]:
    """While entered, torch refuses what is not reproducible on a GPU; then all is as it was.

    cuBLAS reads its setting when it is first used: before this is entered, nothing must have used a GPU.
    """
    if not is_asked:
        yield
        return
    was_on = torch.are_deterministic_algorithms_enabled()
    was_warning = torch.is_deterministic_algorithms_warn_only_enabled()
    was_searching, setting = torch.backends.cudnn.benchmark, os.environ.get(_CUBLAS)
    os.environ.setdefault(_CUBLAS, ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was_on, warn_only=was_warning)
        torch.backends.cudnn.benchmark = was_searching
        if setting is None:
            del os.environ[_CUBLAS]


def compiled(model: nn.Module, config: TrainConfig, device: torch.device) -> nn.Module:
    """The model as torch compiles it, or as it is if nobody asks for that.

    Raises:
        ConfigError: there is no compiler.
    """
    if not config.compile:
        return model
    reason = _no_compiler(device)
    if reason:
        raise ConfigError(f"compile is on and torch cannot compile for {device.type} here: {reason}")
    return torch.compile(model)  # type: ignore[return-value]


def _no_compiler(device: torch.device) -> str:
    """Why nothing can be compiled; empty if it can."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        return "" if has_triton() else "triton is missing; install it, or leave --compile out"
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:
        return f"{str(error).splitlines()[0] or type(error).__name__}; install g++, or leave --compile out"
    return ""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from charrnn.training.config import TrainConfig
from charrnn.training.optimizers import make_optimizer

Parameters = dict[str, torch.Tensor]
SETTINGS = TrainConfig(beta1=0.8, beta2=0.95, weight_decay=0.0)


def parameters() -> Parameters:
    torch.manual_seed(3)
    return {"matrix": torch.randn(7, 5, requires_grad=True), "bias": torch.randn(21, requires_grad=True)}


def torchs(name: str, of: Parameters, weight_decay: float) -> torch.optim.Optimizer:
    groups: list[dict[str, Any]] = [
        {"params": [of["matrix"]], "weight_decay": weight_decay},
        {"params": [of["bias"]], "weight_decay": 0.0},
    ]
    makers: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "adamw": lambda: torch.optim.AdamW(groups, betas=(0.8, 0.95), foreach=False),
        "rmsprop": lambda: torch.optim.RMSprop(groups, alpha=0.95, eps=1e-8, foreach=False),
        "sgd": lambda: torch.optim.SGD(groups, lr=1.0, momentum=0.8, foreach=False),
    }
    return makers[name]()


def steps(name: str, weight_decay: float) -> list[tuple[Parameters, Parameters]]:
    """Ours and torch's parameters after each of 20 steps of gradients and rates of all sizes."""
    ours, theirs = parameters(), parameters()
    optimizer = make_optimizer(ours, SETTINGS.replace(optimizer=name, weight_decay=weight_decay))
    reference = torchs(name, theirs, weight_decay)
    found = []
    for step in range(20):
        for key in ours:
            ours[key].grad = torch.randn(ours[key].shape) * 10.0 ** (step % 5 - 3)
            theirs[key].grad = ours[key].grad
        for group in reference.param_groups:
            group["lr"] = 0.001 * (step + 1)
        reference.step()
        optimizer.step(0.001 * (step + 1))
        found.append(tuple({k: v.detach().clone() for k, v in side.items()} for side in (ours, theirs)))
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["rmsprop", "sgd"])
def test_every_step_is_torchs_bit_for_bit(name: str) -> None:
    for ours, theirs in steps(name, 0.0):
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_every_step_of_adamw_is_torchs(weight_decay: float) -> None:
    for ours, theirs in steps("adamw", weight_decay):
        for key in ours:
            torch.testing.assert_close(ours[key], theirs[key], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["adamw", "rmsprop", "sgd"])
def test_matrices_are_decayed_and_biases_are_not(name: str) -> None:
    """Without a gradient nothing but the decay moves a weight."""
    ours = parameters()
    before = {key: value.detach().clone() for key, value in ours.items()}
    for value in ours.values():
        value.grad = torch.zeros_like(value)
    optimizer = make_optimizer(ours, SETTINGS.replace(optimizer=name, weight_decay=0.5))
    optimizer.step(0.1)
    assert torch.equal(ours["bias"], before["bias"])
    torch.testing.assert_close(ours["matrix"].detach(), before["matrix"] * 0.95)
    optimizer.forget_gradients()
    assert ours["matrix"].grad is None


@pytest.mark.parametrize("name", ["adamw", "rmsprop", "sgd"])
def test_it_is_restored_exactly(name: str) -> None:
    first, second = parameters(), parameters()
    config = SETTINGS.replace(optimizer=name)
    one, two = make_optimizer(first, config), make_optimizer(second, config)
    for step in range(4):
        if step == 2:
            two.restore(one.num_steps, {name: tensor.clone() for name, tensor in one.moments.items()})
            for name in second:
                second[name].data.copy_(first[name].data)
        for name in first:
            first[name].grad = second[name].grad = torch.full_like(first[name], 0.1 * (step + 1))
        one.step(0.1)
        if step >= 2:
            two.step(0.1)
    assert all(torch.equal(first[name], second[name]) for name in first)
    with pytest.raises(KeyError):
        two.restore(1, {})


@pytest.mark.parametrize("name", ["adamw", "rmsprop", "sgd"])
def test_the_compiler_is_not_loaded(name: str) -> None:
    code = (
        "import sys, torch; from charrnn.training import TrainConfig;"
        "from charrnn.training.learner import Learner;"
        "x = torch.zeros(2, 3, dtype=torch.int64);"
        f"c = TrainConfig(hidden_size=4, batch_size=2, device='cpu', optimizer={name!r});"
        "Learner(c, 5).learn(x, x, 0.1); sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

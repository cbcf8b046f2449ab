from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from charrnn.training.adamw import AdamW


def parameters() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return {"matrix": torch.randn(3, 4, requires_grad=True), "bias": torch.randn(4, requires_grad=True)}


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_it_does_what_torchs_does(weight_decay: float) -> None:
    ours, theirs = parameters(), parameters()
    optimizer = AdamW(ours, betas=(0.8, 0.95), weight_decay=weight_decay)
    reference = torch.optim.AdamW(
        [
            {"params": [theirs["matrix"]], "weight_decay": weight_decay},
            {"params": [theirs["bias"]], "weight_decay": 0.0},
        ],
        betas=(0.8, 0.95),
    )
    for step in range(20):
        for name in ours:
            ours[name].grad = torch.randn(ours[name].shape) * 10.0 ** (step % 5 - 3)
            theirs[name].grad = ours[name].grad
        for group in reference.param_groups:
            group["lr"] = 0.01 * (step + 1)
        reference.step()
        optimizer.step(0.01 * (step + 1))
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name])
    optimizer.forget_gradients()
    assert ours["matrix"].grad is None


def test_it_is_restored_exactly() -> None:
    first, second = parameters(), parameters()
    one, two = (AdamW(p, betas=(0.9, 0.99), weight_decay=0.1) for p in (first, second))
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


def test_the_compiler_is_not_loaded() -> None:
    code = (
        "import sys, torch; from charrnn.training import TrainConfig;"
        "from charrnn.training.learner import Learner;"
        "x = torch.zeros(2, 3, dtype=torch.int64);"
        "c = TrainConfig(hidden_size=4, batch_size=2, device='cpu');"
        "Learner(c, 5).learn(x, x, 0.1); sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

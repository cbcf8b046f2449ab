from __future__ import annotations

import math

import pytest
import torch

from charrnn.errors import CheckpointError, ConfigError
from charrnn.training import TrainConfig
from charrnn.training.learner import Learner, choose_device


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets ``(4, 16)`` over five symbols."""
    text = torch.randint(5, (4, 17), generator=torch.Generator().manual_seed(seed))
    return text[:, :-1], text[:, 1:]


def everything(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in (learner.weights() | learner.tensors()).items()}


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_what_is_saved_decides_all_that_follows(cell: str, small: TrainConfig) -> None:
    config = small.replace(cell=cell)
    first = Learner(config, 5)
    for step in range(3):
        first.learn(*batch(step), 0.01)
    saved = {name: tensor.clone() for name, tensor in first.weights().items()}
    tensors = {name: tensor.clone() for name, tensor in first.tensors().items()}
    losses = [first.learn(*batch(step), 0.01) for step in range(3, 6)]

    second = Learner(config.replace(seed=99), 5)
    second.learn(*batch(77), 0.01)
    second.restore(saved, tensors)
    assert [second.learn(*batch(step), 0.01) for step in range(3, 6)] == losses
    ours, theirs = everything(first), everything(second)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_state_is_carried_until_it_is_reset(small: TrainConfig) -> None:
    learner = Learner(small, 5)
    learner.learn(*batch(), 0.01)
    assert all(bool(tensor.abs().sum() > 0) and not tensor.requires_grad for tensor in learner.state)
    learner.reset_state()
    assert all(bool((tensor == 0).all()) for tensor in learner.state)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_changes_nothing(poison: float, small: TrainConfig) -> None:
    learner = Learner(small.replace(dropout=0.0), 5)
    learner.learn(*batch(), 0.01)
    with torch.no_grad():
        good = learner.model.head.bias[0].item()
        learner.model.head.bias[0] = poison
    before = everything(learner)
    learnt = learner.learn(*batch(1), 0.01)
    assert not learnt.is_applied
    assert not (math.isfinite(learnt.nats) and math.isfinite(learnt.gradient_norm))
    after = everything(learner)
    assert all(torch.equal(before[name].nan_to_num(), after[name].nan_to_num()) for name in before)
    assert not learner.is_finite()
    with torch.no_grad():
        learner.model.head.bias[0] = good
    assert learner.is_finite()
    assert learner.learn(*batch(2), 0.01).is_applied  # no gradient of the poisoned step is left


def test_the_gradient_is_clipped(small: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = Learner(small.replace(clip_norm=1e-3), 5)
    norms: list[float] = []

    def step(lr: float) -> None:
        gradients = [parameter.grad for parameter in learner.model.parameters()]
        norms.append(math.sqrt(sum(float((g**2).sum()) for g in gradients if g is not None)))

    monkeypatch.setattr(learner._optimizer, "step", step)
    learnt = learner.learn(*batch(), 0.01)
    assert learnt.gradient_norm > 1e-2
    assert norms == [pytest.approx(1e-3, rel=1e-3)]


def test_weights_of_another_model_are_refused(small: TrainConfig) -> None:
    other = Learner(small.replace(hidden_size=8), 5)
    with pytest.raises(CheckpointError, match="of another model"):
        Learner(small, 5).restore(other.weights(), other.tensors())


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ConfigError, match="device is 'cuda:4096' and torch sees"):
        choose_device("cuda:4096")

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from charrnn.training import CharRNN, evaluate
from charrnn.training.dynamic import DynamicSettings, dynamic_loss
from charrnn.training.model import ModelShape
from charrnn.training.splits import Tokens


def a_model(dropout: float = 0.5) -> CharRNN:
    torch.manual_seed(1)
    return CharRNN(ModelShape(6, "lstm", 2, 8, dropout=dropout))


def some_tokens(num_tokens: int, seed: int = 1) -> Tokens:
    return np.random.default_rng(seed).integers(0, 6, num_tokens).astype(np.uint8)


def slow_dynamic(model: CharRNN, tokens: Tokens, train: Tokens, settings: DynamicSettings) -> float:
    """The rule of the paper, weight by weight in a flat vector."""
    model = copy.deepcopy(model).eval()

    def run(text: Tokens, state: object) -> tuple[torch.Tensor, torch.Tensor, object]:
        ids = torch.tensor(text.tolist())
        logits, state = model(ids[None, :-1], state)
        loss = torch.nn.functional.cross_entropy(logits[0], ids[1:])
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        gradient = torch.cat([gradient.flatten() for gradient in gradients])
        return loss.detach(), gradient, tuple(tensor.detach() for tensor in state)  # type: ignore[attr-defined]

    n = settings.segment
    starts = np.linspace(0, len(train) - n - 1, settings.num_measured).astype(int)
    rows = [run(train[start : start + n + 1], model.zero_state(1))[1] for start in sorted(set(starts))]
    root = torch.stack(rows).square().mean(0).sqrt()
    trained = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    state: object = model.zero_state(1)
    total = 0.0
    for at in range(0, len(tokens) - 1, n):
        piece = tokens[at : at + n + 1]
        loss, gradient, state = run(piece, state)
        total += float(loss) * (len(piece) - 1)
        now = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
        back = (settings.decay * root / root.mean()).clamp(max=1.0) * (trained - now)
        now = now - settings.lr * gradient / (root + settings.epsilon * root.mean()) + back
        torch.nn.utils.vector_to_parameters(now, model.parameters())
    return total / (len(tokens) - 1)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_it_is_the_rule_of_the_paper(decay: float) -> None:
    settings = DynamicSettings(lr=0.01, decay=decay, segment=7, num_measured=9)
    model, tokens, train = a_model(), some_tokens(100), some_tokens(300, seed=2)
    before = copy.deepcopy(model.state_dict())
    loss = dynamic_loss(model, tokens, train, settings)
    assert loss.num_tokens == 99
    assert loss.nats == pytest.approx(slow_dynamic(model, tokens, train, settings), abs=1e-6)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert model.training
    assert all(weight.grad is None for weight in model.parameters())


def test_without_a_step_it_is_the_carried_loss_and_with_one_it_learns_a_habit() -> None:
    model, train = a_model(), some_tokens(300)
    habit = np.tile(np.array([0, 3, 1, 4], np.uint8), 100)
    carried = evaluate(model, habit, num_streams=1)
    static = dynamic_loss(model, habit, train, DynamicSettings(lr=0.0))
    assert static.nats == pytest.approx(carried.nats, abs=1e-6)
    assert dynamic_loss(model, habit, train, DynamicSettings(lr=0.01)).nats < carried.nats - 0.3


def test_short_texts() -> None:
    model = a_model()
    assert dynamic_loss(model, some_tokens(2), some_tokens(2)).num_tokens == 1
    with pytest.raises(ValueError, match="two tokens or more, not 1"):
        dynamic_loss(model, some_tokens(2), some_tokens(1))

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from charrnn.training import CharRNN, evaluate
from charrnn.training.model import ModelShape

Weights = dict[str, npt.NDArray[np.float64]]


def sigmoid(x: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-x))


def cell(kind: str, gates_in: Any, gates_hidden: Any, h: Any, c: Any) -> tuple[Any, Any]:
    """One row of one layer, by the equations in torch's documentation."""
    if kind == "rnn":
        return np.tanh(gates_in + gates_hidden), c
    if kind == "gru":
        (r1, z1, n1), (r2, z2, n2) = np.split(gates_in, 3), np.split(gates_hidden, 3)
        r, z = sigmoid(r1 + r2), sigmoid(z1 + z2)
        return (1 - z) * np.tanh(n1 + r * n2) + z * h, c
    i, f, g, o = np.split(gates_in + gates_hidden, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def naive_nats(kind: str, num_layers: int, weights: Weights, tokens: list[int]) -> list[float]:
    """-ln p of every token but the first, one by one, in float64."""
    hidden_size = weights["head.weight"].shape[1]
    h = c = [np.zeros(hidden_size)] * num_layers
    nats = []
    for token, target in itertools.pairwise(tokens):
        x = np.eye(weights["head.weight"].shape[0])[token]
        h, c = list(h), list(c)
        for layer in range(num_layers):
            w = {
                name: weights[f"rnn.{name}_l{layer}"]
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            }
            gates_in, gates_hidden = (
                w["weight_ih"] @ x + w["bias_ih"],
                w["weight_hh"] @ h[layer] + w["bias_hh"],
            )
            h[layer], c[layer] = cell(kind, gates_in, gates_hidden, h[layer], c[layer])
            x = h[layer]
        logits = weights["head.weight"] @ x + weights["head.bias"]
        nats.append(math.log(np.exp(logits).sum()) - logits[target])
    return nats


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("num_streams", [1, 3, None])
def test_the_loss_is_that_of_a_naive_computation(kind: str, num_streams: int | None) -> None:
    torch.manual_seed(2)
    model = CharRNN(ModelShape(5, kind, 2, 6))
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.7)
    tokens = np.random.default_rng(3).integers(0, 5, 450).astype(np.uint8)
    weights = {name: weight.double().numpy() for name, weight in model.state_dict().items()}
    streams = num_streams or 1
    length = 449 // streams
    starts = [stream * length for stream in range(streams)]
    ends = [*starts[1:], 449]  # what is left over continues the last stream
    nats = [
        value
        for start, end in zip(starts, ends, strict=True)
        for value in naive_nats(kind, 2, weights, tokens[start : end + 1].tolist())
    ]
    loss = evaluate(model, tokens, num_streams=num_streams)
    assert loss.num_tokens == len(nats) == 449
    assert loss.nats == pytest.approx(sum(nats) / 449, abs=1e-6)
    assert loss.bpc == pytest.approx(loss.nats / math.log(2))


def test_dropout_is_off_and_the_mode_is_kept() -> None:
    torch.manual_seed(1)
    model = CharRNN(ModelShape(4, "lstm", 2, 8, dropout=0.9)).train()
    tokens = np.arange(40, dtype=np.uint8) % 4
    assert evaluate(model, tokens) == evaluate(model, tokens)
    assert model.training


def test_a_loss_needs_two_tokens() -> None:
    model = CharRNN(ModelShape(4, "rnn", 1, 8))
    assert evaluate(model, np.array([1, 2], np.uint8), num_streams=9).num_tokens == 1
    with pytest.raises(ValueError, match="two tokens or more, not 1"):
        evaluate(model, np.array([1], np.uint8))

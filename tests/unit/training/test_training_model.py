from __future__ import annotations

import pytest
import torch

from charrnn.training.model import CharRNN, ModelShape, join_state, split_state

SHAPES = [
    ModelShape(vocab_size=7, cell=cell, num_layers=num_layers, hidden_size=5, embedding_dim=embedding_dim)
    for cell in ("lstm", "gru", "rnn")
    for num_layers in (1, 3)
    for embedding_dim in (0, 4)
]


def made(shape: ModelShape) -> CharRNN:
    torch.manual_seed(1)
    return CharRNN(shape).eval()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_stepping_is_going_forward(shape: ModelShape) -> None:
    model = made(shape)
    inputs = torch.randint(7, (3, 11))  # (B, T)
    logits, last = model(inputs, model.zero_state(3))
    state = model.zero_state(3)
    for position in range(11):
        row, state = model.step(inputs[:, position], state)
        torch.testing.assert_close(row, logits[:, position])
    for stepped, gone in zip(state, last, strict=True):
        torch.testing.assert_close(stepped, gone)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_windows_carry_the_state_of_one_long_pass(shape: ModelShape) -> None:
    model = made(shape)
    inputs = torch.randint(7, (2, 30))
    logits, last = model(inputs, model.zero_state(2))
    state, rows = model.zero_state(2), []
    for window in inputs.split(8, dim=1):
        row, state = model(window, state)
        rows.append(row)
    torch.testing.assert_close(torch.cat(rows, dim=1), logits)
    for carried, gone in zip(state, last, strict=True):
        torch.testing.assert_close(carried, gone)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_state_in_the_order_of_its_names(shape: ModelShape) -> None:
    model = made(shape)
    state = tuple(torch.randn_like(tensor) for tensor in model.zero_state(2))
    tensors = split_state(state)
    assert len(tensors) == len(model.state_names)
    for name, tensor in zip(model.state_names, tensors, strict=True):
        assert torch.equal(tensor, state["hc".index(name[0])][int(name[1:])])
    for joined, given in zip(join_state(tensors, shape.cell), state, strict=True):
        assert torch.equal(joined, given)


def test_state_names() -> None:
    assert made(ModelShape(3, "lstm", 2, 4)).state_names == ["h0", "c0", "h1", "c1"]
    assert made(ModelShape(3, "gru", 2, 4)).state_names == ["h0", "h1"]


def test_weights_have_the_names_of_torch() -> None:
    names = set(made(ModelShape(3, "lstm", 1, 4, embedding_dim=2)).state_dict())
    gates = {f"rnn.{kind}_{side}_l0" for kind in ("weight", "bias") for side in ("ih", "hh")}
    assert names == gates | {"embedding.weight", "head.weight", "head.bias"}


def test_an_lstm_starts_remembering() -> None:
    model = made(ModelShape(3, "lstm", 2, 4))
    for layer in range(2):
        bias = getattr(model.rnn, f"bias_ih_l{layer}") + getattr(model.rnn, f"bias_hh_l{layer}")
        assert bias.tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 8  # gates i, f, g, o


def test_one_of_k_is_an_embedding_of_unit_vectors() -> None:
    bare = made(ModelShape(6, "gru", 1, 4))
    embedded = made(ModelShape(6, "gru", 1, 4, embedding_dim=6))
    embedded.load_state_dict(bare.state_dict() | {"embedding.weight": torch.eye(6)})
    inputs = torch.randint(6, (2, 5))
    assert torch.equal(bare(inputs, bare.zero_state(2))[0], embedded(inputs, embedded.zero_state(2))[0])


def test_dropout_stands_between_layers_and_before_the_head() -> None:
    torch.manual_seed(1)
    model = CharRNN(ModelShape(3, "rnn", 1, 64, dropout=0.5)).train()
    assert model.rnn.dropout == 0.0  # a single layer has nothing in between
    with torch.no_grad():
        model.head.weight.fill_(1.0)
        for name, weight in model.rnn.named_parameters():
            weight.fill_(9.0 if name == "bias_ih_l0" else 0.0)  # every hidden unit is tanh(9), nearly 1
        logits, _ = model(torch.zeros(1, 50, dtype=torch.int64), model.zero_state(1))
    kept = (logits[0, :, 0] / 2).round()  # units kept, scaled by 1 / (1 - 0.5)
    assert len(set(kept.tolist())) > 1
    assert CharRNN(ModelShape(3, "rnn", 2, 4, dropout=0.5)).rnn.dropout == 0.5

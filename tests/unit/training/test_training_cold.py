"""Losses from a zero state, beside one symbol after the other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from charrnn.training import CharRNN
from charrnn.training.cold import by_position, cold_loss, loss_by_position
from charrnn.training.model import ModelShape
from charrnn.training.splits import Tokens


def wild_model(cell: str = "lstm") -> CharRNN:
    torch.manual_seed(2)
    model = CharRNN(ModelShape(5, cell, 2, 6, dropout=0.5))  # type: ignore[arg-type]
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.7)
    return model.train()


@torch.no_grad()
def slow_nats(model: CharRNN, tokens: Tokens, window: int) -> list[list[float]]:
    """Nats of every window's predictions, one step at a time."""
    model.eval()
    windows = []
    for start in range(0, len(tokens) - 1, window):
        piece, state = tokens[start : start + window + 1].tolist(), model.zero_state(1)
        nats = []
        for token, target in itertools.pairwise(piece):
            logits, state = model.step(torch.tensor([token]), state)
            nats.append(-float(torch.log_softmax(logits[0], 0)[target]))
        windows.append(nats)
    model.train()
    return windows


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize(("num_tokens", "window"), [(451, 16), (450, 449), (40, 100), (2, 1), (701, 300)])
def test_windows_are_those_of_single_steps(cell: str, num_tokens: int, window: int) -> None:
    model = wild_model(cell)
    tokens = np.random.default_rng(3).integers(0, 5, num_tokens).astype(np.uint8)
    windows = slow_nats(model, tokens, min(window, num_tokens - 1))
    loss = cold_loss(model, tokens, window)
    assert loss.num_tokens == num_tokens - 1
    assert loss.nats == pytest.approx(np.mean(np.concatenate(windows)), abs=1e-6)
    sums, counts = by_position(model, tokens, window)
    for position in range(len(sums)):
        column = [nats[position] for nats in windows if len(nats) > position]
        assert counts[position] == len(column)
        assert sums[position] == pytest.approx(sum(column), abs=1e-4)
    assert model.training


def test_buckets_double_and_hold_every_position() -> None:
    model = wild_model()
    tokens = np.random.default_rng(4).integers(0, 5, 161).astype(np.uint8)
    buckets = loss_by_position(model, tokens)
    bounds = [(bucket.first, bucket.last) for bucket in buckets]
    assert bounds == [
        (1, 1),
        (2, 2),
        (3, 4),
        (5, 8),
        (9, 16),
        (17, 20),
    ]
    sums, counts = by_position(model, tokens, 20)
    assert [bucket.loss.num_tokens for bucket in buckets] == [8, 8, 16, 32, 64, 32]
    assert buckets[3].loss.nats == pytest.approx(sums[4:8].sum() / counts[4:8].sum())
    assert len(loss_by_position(model, tokens[:2])) == 1


def test_a_loss_needs_two_tokens() -> None:
    with pytest.raises(ValueError, match="two tokens or more, not 1"):
        cold_loss(wild_model(), np.array([1], np.uint8), 10)

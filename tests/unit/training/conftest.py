"""Fixtures for training: a small text, small settings, one thread."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from charrnn.training import TrainConfig


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums do not depend on the machine's cores; other tests get their threads back."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A text of about 4,000 characters."""
    rng = random.Random(1)
    words = ["to", "be", "or", "not", "that", "is", "the", "question", "whether", "nobler"]
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(" ".join(rng.choices(words, k=8)) for _ in range(110)) + "\n")
    return path


@pytest.fixture
def small() -> TrainConfig:
    """Settings that train in a moment."""
    return TrainConfig(
        num_layers=2,
        hidden_size=12,
        dropout=0.2,
        batch_size=4,
        bptt=16,
        max_steps=30,
        lr=0.01,
        device="cpu",
        threads=1,
        checkpoint_every=7,
        eval_every=11,
        sample_chars=20,
    )

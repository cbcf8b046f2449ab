"""Fixtures of the export tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from charrnn.export import parity


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer steps of the parity grid, where a test is not about their number."""
    monkeypatch.setattr(parity, "NUM_STEPS", 20)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Threads cost more than these models take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

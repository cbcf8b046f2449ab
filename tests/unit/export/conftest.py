"""Fixtures of the export tests."""

from __future__ import annotations

import pytest

from charrnn.export import parity


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer steps of the parity grid, where a test is not about their number."""
    monkeypatch.setattr(parity, "NUM_STEPS", 20)

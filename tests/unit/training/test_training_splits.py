from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.training.splits import Split, Windows


@pytest.mark.parametrize(
    ("name", "num_tokens", "parts"),
    [
        ("tail", 1000, {"train": (0, 900), "validation": (900, 950), "test": (950, 1000)}),
        (
            "tail",
            1115394,
            {"train": (0, 1003854), "validation": (1003854, 1059624), "test": (1059624, 1115394)},
        ),
        ("tail", 19, {"train": (0, 17), "validation": (17, 18), "test": (18, 19)}),
        ("nanogpt", 1115394, {"train": (0, 1003854), "validation": (1003854, 1115394)}),
        ("none", 7, {"train": (0, 7)}),
    ],
)
def test_parts(name: str, num_tokens: int, parts: dict[str, tuple[int, int]]) -> None:
    split = Split.of(name, num_tokens)
    assert dict(split.parts) == parts
    assert sum(split.sizes.values()) == num_tokens
    assert Split.from_json(json.loads(json.dumps(split.to_json()))) == split
    tokens = np.arange(num_tokens, dtype=np.uint32)
    assert np.array_equal(np.concatenate(list(split.cut(tokens).values())), tokens)


@given(st.integers(2, 300), st.integers(1, 8), st.integers(1, 40))
def test_windows_follow_one_another_in_every_stream(num_tokens: int, batch_size: int, bptt: int) -> None:
    tokens = np.arange(num_tokens, dtype=np.uint16)
    windows = Windows(tokens, batch_size, bptt)
    pairs = [windows[index] for index in range(len(windows))]
    length = (num_tokens - 1) // batch_size
    if length == 0:
        assert pairs == []
        return
    inputs = np.concatenate([inputs.numpy() for inputs, _ in pairs], axis=1)
    targets = np.concatenate([targets.numpy() for _, targets in pairs], axis=1)
    assert np.array_equal(inputs.ravel(), tokens[: batch_size * length])
    assert np.array_equal(targets, inputs + 1)
    sizes = {inputs.shape[1] for inputs, _ in pairs}
    assert max(sizes) <= bptt
    assert max(sizes) - min(sizes) <= 1
    assert len(pairs) == -(-length // bptt)

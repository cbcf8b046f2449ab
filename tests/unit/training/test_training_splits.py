from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.errors import DataError
from charrnn.training.config import SplitName
from charrnn.training.layout import DocumentLayout, RangeLayout
from charrnn.training.splits import Split
from charrnn.training.windows import Windows


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


def moved(text: np.ndarray, layout: RangeLayout | DocumentLayout, sizes: list[int]) -> dict[str, np.ndarray]:
    """The parts of a text that was routed in pieces of the given sizes."""
    places = np.full(len(text), 999_999, text.dtype)
    position = 0
    for size in itertools.cycle(sizes):
        piece = text[position : position + size]
        for place, run in layout.route(piece):
            places[place : place + len(run)] = run
        position += size
        if position >= len(text):
            return layout.split().cut(places)
    raise AssertionError


@given(st.integers(1, 3000), st.lists(st.integers(1, 700), min_size=1))
def test_interleaved_ranges_are_the_ends_of_fifty_pieces(num_tokens: int, sizes: list[int]) -> None:
    text = np.arange(num_tokens, dtype=np.uint32)
    expected: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for piece in range(50):
        rows = list(range(num_tokens * piece // 50, num_tokens * (piece + 1) // 50))
        first, second = len(rows) * 90 // 100, len(rows) * 95 // 100
        expected["train"] += rows[:first]
        expected["validation"] += rows[first:second]
        expected["test"] += rows[second:]
    parts = moved(text, RangeLayout("interleaved", num_tokens), sizes)
    assert {name: part.tolist() for name, part in parts.items()} == expected
    assert Split.of("interleaved", num_tokens) == RangeLayout("interleaved", num_tokens).split()


@pytest.mark.parametrize("name", ["tail", "interleaved", "nanogpt", "none"])
@given(
    lengths=st.lists(st.integers(2, 30), min_size=60, max_size=120),
    sizes=st.lists(st.integers(1, 200), min_size=1),
)
def test_documents_stay_whole(name: SplitName, lengths: list[int], sizes: list[int]) -> None:
    text = np.concatenate([np.r_[np.full(length - 1, n + 1), 0] for n, length in enumerate(lengths)])
    text = text.astype(np.uint32)
    turns = [sum(lengths[turn::20]) for turn in range(20)]
    parts = moved(text, DocumentLayout(name, 0, len(text), tuple(turns)), sizes)
    cuts = {"tail": [0.9, 0.95], "nanogpt": [0.9], "none": []}.get(name, [])
    expected: dict[str, list[int]] = {part: [] for part in parts}
    begin = 0
    for number, length in enumerate(lengths):
        if name == "interleaved":
            part = {9: 1, 19: 2}.get(number % 20, 0)
        else:
            part = sum(begin >= int(len(text) * cut + 1e-9) for cut in cuts)
        expected[list(parts)[part]] += text[begin : begin + length].tolist()
        begin += length
    assert {part: tokens.tolist() for part, tokens in parts.items()} == expected


def test_a_part_without_documents_is_refused() -> None:
    layout = DocumentLayout("tail", 0, 102, (0,) * 20)
    list(layout.route(np.array([1, 0] + [1] * 99 + [0], np.uint8)))
    with pytest.raises(DataError, match="split tail of 2 documents leaves validation without any: give more"):
        layout.split()

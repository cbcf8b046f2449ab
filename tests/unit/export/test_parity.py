"""What parity and bits per character say of steppers made for the purpose."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from charrnn.export import bpc, parity
from charrnn.export.stepping import Logits, State, Tokens, carrying
from charrnn.export.weights import Array

VOCAB_SIZE = 5


def counting(tokens: Tokens) -> Iterator[Logits]:
    """Logits that depend on the row's own tokens so far."""
    total = np.zeros(len(tokens))
    for column in tokens.T:
        total = total * 0.5 + column
        yield np.float32(np.outer(total, np.arange(VOCAB_SIZE)))


def by_batch_size(tokens: Tokens) -> Iterator[Logits]:
    """One bit of row 0 depends on how many rows there are."""
    for logits in counting(tokens):
        if len(tokens) == 7:
            logits[0, 1] = np.nextafter(logits[0, 1], np.float32(np.inf))
        yield logits


def by_place(tokens: Tokens) -> Iterator[Logits]:
    """Odd rows are a bit off, as where vector code takes the even ones and scalar code the rest."""
    for logits in counting(tokens):
        logits[1::2] = np.nextafter(logits[1::2], np.float32(np.inf))
        yield logits


def by_largest(tokens: Tokens) -> Iterator[Logits]:
    """A scale taken over the whole batch, as dynamic quantisation takes it."""
    for logits in counting(tokens):
        yield np.rint(logits / (np.abs(logits).max() + 1) * 127)


def test_rows_alone_are_found_alone() -> None:
    assert parity.dependent_row(counting, VOCAB_SIZE) is None


def test_a_bit_that_depends_on_the_batch_is_found() -> None:
    found = parity.dependent_row(by_batch_size, VOCAB_SIZE)
    assert found is not None
    assert found[0] == 7


def test_a_bit_that_depends_on_the_place_is_found() -> None:
    assert parity.dependent_row(by_place, VOCAB_SIZE) is not None


def test_a_scale_over_the_batch_is_found() -> None:
    assert parity.dependent_row(by_largest, VOCAB_SIZE) is not None


def halving(token: Tokens, state: State | None) -> tuple[Logits, State]:
    """``counting`` as a step."""
    before = np.zeros(len(token)) if state is None else state[0]
    total = before * 0.5 + token
    return np.outer(total, np.arange(VOCAB_SIZE)), [total]


def differences_from_halving(
    spoil: Callable[[Logits, Array, State | None], None],
) -> parity.Differences:
    """What is said of ``halving`` once ``spoil`` has changed its logits or its next state in place."""

    def other(token: Tokens, state: State | None) -> tuple[Logits, State]:
        logits, (total,) = halving(token, state)
        spoil(logits, total, state)
        return logits, [total]

    return parity.step_differences(halving, other, VOCAB_SIZE)


def test_differences_are_the_largest_of_all_batches() -> None:
    def spoil(logits: Logits, total: Array, state: State | None) -> None:
        logits[-1, 2] += len(logits)

    assert np.allclose(differences_from_halving(spoil), 64)


def test_both_sides_start_each_step_from_the_first_ones_state() -> None:
    def spoil(logits: Logits, total: Array, state: State | None) -> None:
        total += 0.25

    assert np.allclose(differences_from_halving(spoil), 0.25)  # not 0.25, 0.375, ...


def test_nan_is_a_difference_in_logits_and_in_states() -> None:
    def spoil(logits: Logits, total: Array, state: State | None) -> None:
        if len(logits) == 2:
            (total if state is None else logits)[0] = np.nan

    assert np.isnan(differences_from_halving(spoil)).all()


def test_uniform_guesses_cost_the_logarithm_of_the_vocabulary() -> None:
    def uniform(tokens: Tokens) -> Iterator[Logits]:
        for _ in tokens.T:
            yield np.full((len(tokens), VOCAB_SIZE), 1000.0, np.float32)

    streams = bpc.cut(np.arange(1000) % VOCAB_SIZE)
    assert streams is not None
    assert bpc.bits_per_character(uniform, streams) == pytest.approx(math.log2(VOCAB_SIZE), abs=1e-12)


def test_bits_per_character_one_character_at_a_time() -> None:
    text = np.random.default_rng(0).integers(0, VOCAB_SIZE, 700)
    streams = bpc.cut(text)
    assert streams is not None
    assert streams.inputs.shape == (2, 349)
    bits = 0.0
    for start in (0, 349):
        total = 0.0
        for here, following in zip(text[start : start + 349], text[start + 1 : start + 350], strict=True):
            total = total * 0.5 + here
            weights = [math.exp(total * k) for k in range(VOCAB_SIZE)]
            bits -= math.log2(weights[following] / sum(weights))
    assert bpc.bits_per_character(counting, streams) == pytest.approx(bits / 698, rel=1e-5)


@pytest.mark.parametrize(
    ("length", "shape"),
    [(0, None), (1, None), (2, (1, 1)), (300, (1, 299)), (20_000, (64, 312)), (10**6, (64, 4096))],
)
def test_a_text_is_cut_by_its_length_alone(length: int, shape: tuple[int, int] | None) -> None:
    text = np.arange(length, dtype=np.uint32)
    streams = bpc.cut(text)
    if shape is None:
        assert streams is None
        return
    assert streams is not None
    assert streams.inputs.shape == streams.targets.shape == shape
    assert np.array_equal(streams.targets, streams.inputs + 1)
    assert np.array_equal(streams.inputs.ravel(), np.arange(shape[0] * shape[1]))


@pytest.mark.parametrize("longest", [1, 9, 1000])
def test_documents_are_never_cut_and_each_is_read_from_its_beginning(longest: int) -> None:
    random = np.random.default_rng(0)
    lengths = random.integers(1, longest + 1, 4000 // longest)
    documents = [[*random.integers(0, 4, length).tolist(), 4] for length in lengths]
    streams = bpc.cut(np.concatenate(documents), 4)
    assert streams is not None
    rows = zip(streams.inputs.tolist(), streams.targets.tolist(), strict=True)
    read = [(a, b) for inputs, targets in rows for a, b in zip(inputs, targets, strict=True) if b >= 0]
    assert read == [pair for it in documents for pair in zip([4, *it], it, strict=False)]
    assert len(read) == streams.num_tokens
    assert len(streams.inputs) > 2
    bits = sum(surprise(it) for it in documents) / len(read)
    assert bpc.bits_per_character(carrying(summing, 4), streams) == pytest.approx(bits, rel=1e-5)


def surprise(document: list[int]) -> float:
    """Bits of a document, one character at a time."""
    bits, total = 0.0, 0.0
    for here, following in zip([4, *document], document, strict=False):
        total += here
        weights = [math.exp(min(total, 9) * k / 9) for k in range(VOCAB_SIZE)]
        bits -= math.log2(weights[following] / sum(weights))
    return bits


def summing(token: Tokens, state: State | None) -> tuple[Logits, State]:
    """Logits that depend on all that was read since the zero state, up to a sum of 9."""
    total = (np.zeros((len(token), 1), np.float32) if state is None else state[0]) + token[:, None]
    return np.float32(np.minimum(total, 9) * np.arange(VOCAB_SIZE) / 9), [total]


def test_a_text_without_a_document_end_is_one_and_nothing_is_none() -> None:
    streams = bpc.cut(np.array([1, 2, 3]), 4)
    assert streams is not None
    assert (streams.inputs.tolist(), streams.targets.tolist()) == ([[4, 1, 2]], [[1, 2, 3]])
    assert bpc.cut(np.array([], np.uint8), 4) is None


def test_an_end_token_is_read_from_the_zero_state() -> None:
    def step(token: Tokens, state: State | None) -> tuple[Logits, State]:
        total = (np.zeros((len(token), 1), np.float32) if state is None else state[0]) + token[:, None]
        return total, [total]

    tokens = np.array([[1, 2, 4, 1], [4, 4, 2, 2]])
    totals = [logits[:, 0].tolist() for logits in carrying(step, 4)(tokens)]
    assert totals == [[1, 4], [3, 4], [4, 6], [5, 8]]
    assert [logits[:, 0].tolist() for logits in carrying(step)(tokens)] == [[1, 4], [3, 8], [7, 10], [8, 12]]

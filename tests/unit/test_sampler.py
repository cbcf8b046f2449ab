"""The sampler against the slow reference, the golden vectors, and what its parameters promise."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charrnn import Sampler, SamplingParams, _native
from charrnn.errors import RequestError
from charrnn.random import philox4x32 as philox
from tests.golden import make
from tests.reference import Rules, draw, philox4x32, uniform64

BAND = 2.0**-30


def sample(
    logits: np.ndarray,
    rules: Rules,
    seeds: list[int],
    positions: list[int],
    history: list[list[int]] | None = None,
) -> list[int]:
    params = SamplingParams(**vars(rules))
    arrays = {"seeds": np.array(seeds, np.uint64), "positions": np.array(positions, np.uint64)}
    output = Sampler(logits.shape[1]).sample(logits, params, **arrays, history=history)
    assert not output.status.any()
    return output.tokens.tolist()


words = st.integers(0, 2**32 - 1)


@given(st.tuples(words, words, words, words), st.tuples(words, words))
def test_philox_is_the_reference(counter: tuple[int, ...], key: tuple[int, ...]) -> None:
    assert list(philox(counter, key)) == philox4x32(counter, key)


def test_philox_gives_its_authors_known_answers() -> None:
    """From kat_vectors of Random123."""
    assert philox((0, 0, 0, 0), (0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)
    assert philox(*pi) == (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)


def test_golden_vectors_are_current() -> None:
    assert make.PATH.read_text() == make.make()


def test_golden_vectors() -> None:
    cases = json.loads(make.PATH.read_text())
    assert len(cases) > 450
    for case in cases:
        rules = {name: case[name] for name in vars(Rules())}
        rules["logit_bias"] = {int(i): bias for i, bias in rules["logit_bias"].items()}
        logits, history = np.array([case["logits"]], np.float32), [case["history"]]
        found = sample(logits, Rules(**rules), [case["seed"]], [case["position"]], history)
        assert found == [case["token"]], case


rules_strategy = st.builds(
    Rules,
    temperature=st.sampled_from([0.0, 1e-3, 0.3, 1.0, 2.5, 1e6]),
    top_k=st.sampled_from([0, 1, 2, 10, 10_000]),
    top_p=st.sampled_from([0.0, 0.1, 0.5, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.9, 1.0]),
    typical_p=st.sampled_from([1.0, 1.0, 0.0, 0.3, 0.9]),
    repetition_penalty=st.sampled_from([1.0, 0.5, 1.3]),
    frequency_penalty=st.sampled_from([0.0, 0.7]),
    presence_penalty=st.sampled_from([0.0, -1.0]),
    penalty_window=st.sampled_from([0, 1, 5, 64]),
    no_repeat_ngram_size=st.sampled_from([0, 0, 1, 2, 3]),
    logit_bias=st.dictionaries(st.integers(0, 1), st.sampled_from([-math.inf, -2.0, 0.1]), max_size=1),
)


@settings(max_examples=150, deadline=None)
@given(
    vocab_size=st.sampled_from([1, 2, 65, 96, 256, 1024]),
    scale=st.sampled_from([0.0, 0.5, 5.0, 40.0]),
    rules=rules_strategy,
    seed=st.integers(0, 2**64 - 1),
)
def test_draws_are_the_references_outside_the_band(
    vocab_size: int, scale: float, rules: Rules, seed: int
) -> None:
    """Rounded logits make ties. The seed of the row's values is the draw's, so a failure replays."""
    rng = np.random.default_rng(seed)
    logits = (np.round(rng.normal(size=(4, vocab_size)) * 4) / 4 * scale).astype(np.float32)
    if vocab_size == 1:
        rules = replace(rules, logit_bias={})
    rules = replace(rules, logit_bias={i: b for i, b in rules.logit_bias.items() if i < vocab_size})
    history = [rng.integers(0, min(vocab_size, 9), size=n).tolist() for n in (0, 1, 7, 80)]
    positions = rng.integers(0, 2**63, size=4).tolist()
    tokens = sample(logits, rules, [seed] * 4, positions, history)
    for row, past, position, token in zip(logits.tolist(), history, positions, tokens, strict=True):
        expected, margin = draw(row, rules, uniform64(seed, position), past)
        assert token == expected or margin < BAND


@pytest.mark.parametrize("rules", [Rules(), Rules(0.7, top_k=40, top_p=0.95), Rules(2.0, typical_p=0.5)])
def test_large_vocabularies_are_drawn_from_like_small_ones(rules: Rules) -> None:
    rng = np.random.default_rng(5)
    logits = (rng.normal(size=(6, 65_536)) * 3).astype(np.float32)
    tokens = sample(logits, rules, [9] * 6, list(range(6)))
    for row, position, token in zip(logits.tolist(), range(6), tokens, strict=True):
        expected, margin = draw(row, rules, uniform64(9, position))
        assert token == expected or margin < BAND


def test_a_row_alone_is_the_row_of_a_batch() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(64, 65)).astype(np.float32)
    rules, seeds, positions = Rules(0.9, top_p=0.9), list(range(64)), list(range(100, 164))
    together = sample(logits, rules, seeds, positions)
    alone = [sample(logits[r : r + 1], rules, [seeds[r]], [positions[r]])[0] for r in range(64)]
    assert together == alone


def test_draws_follow_the_softmax() -> None:
    """Chi-square of 1e6 draws over 20 tokens; a right sampler fails for one seed in 1e9."""
    logits = np.linspace(0, 3, 20, dtype=np.float32)
    num_draws = 1_000_000
    tokens = sample(
        np.broadcast_to(logits, (num_draws, 20)), Rules(), [3] * num_draws, list(range(num_draws))
    )
    expected = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum() * num_draws
    chi_square = float(((np.bincount(tokens, minlength=20) - expected) ** 2 / expected).sum())
    # 1 - 1e-9 quantile of chi-square with 19 degrees of freedom, by Wilson and Hilferty (1931).
    quantile = 19 * (1 - 2 / (9 * 19) + 5.998 * math.sqrt(2 / (9 * 19))) ** 3
    assert chi_square < quantile


@pytest.mark.parametrize(
    ("row", "token", "status"),
    [
        ([0.0, math.nan], -1, 1),
        ([-math.inf, -math.inf], -1, 2),
        ([math.inf, 3.0], 0, 0),
        ([-math.inf, -3e38], 1, 0),
        ([3e38, -3e38], 0, 0),
        ([1e-45, 0.0], 0, 0),
    ],
)
def test_edge_rows(row: list[float], token: int, status: int) -> None:
    temperature = 1e-300 if row[0] == 1e-45 else 1.0
    zeros = np.zeros(1, np.uint64)
    params = SamplingParams(temperature=temperature)
    output = Sampler(2).sample(np.array([row], np.float32), params, seeds=zeros, positions=zeros)
    assert (output.tokens[0], output.status[0]) == (token, status)


def test_infinite_temperature_is_uniform_over_what_is_allowed() -> None:
    logits = np.broadcast_to(np.array([5.0, -50.0, -np.inf, 0.0], np.float32), (30_000, 4))
    tokens = sample(logits, Rules(math.inf), [1] * 30_000, list(range(30_000)))
    counts = np.bincount(tokens, minlength=4)
    # Six standard deviations of a count of 10,000 are 490: fails by chance once in 1e8 runs.
    assert counts[2] == 0
    assert all(abs(counts[i] - 10_000) < 490 for i in (0, 1, 3))


def test_wrong_shapes_are_refused() -> None:
    zeros = np.zeros(2, np.uint64)
    with pytest.raises(RequestError, match=r"expected \(B, 3\)"):
        Sampler(3).sample(np.zeros((2, 4), np.float32), SamplingParams(), seeds=zeros, positions=zeros)


SAMPLING_LIMITS = [row for row in _native.limits() if hasattr(SamplingParams, row[0])]


def test_every_number_of_the_parameters_has_a_limit() -> None:
    fields = SamplingParams(seed=1, logprobs=1, logit_bias={0: 1.0}).fields()
    numbers = {name for name, value in fields.items() if isinstance(value, (int, float))}
    limited = {row[0] for row in SAMPLING_LIMITS}
    assert limited == (numbers | {"logit_bias"}) - {"seed", "utf8", "include_stop"}


@pytest.mark.parametrize("row", SAMPLING_LIMITS, ids=lambda row: row[0])
def test_the_limits_table_is_what_the_class_enforces(
    row: tuple[str, float, float, float | None, str],
) -> None:
    name, smallest, largest, default, _ = row
    if name == "logit_bias":
        with pytest.raises(RequestError, match="logit_bias is "):
            SamplingParams(logit_bias={3: largest * 2})
        return
    assert getattr(SamplingParams(), name) == default
    is_whole = isinstance(getattr(SamplingParams(), name), int) or default is None
    for value in (smallest, largest):
        value = int(value) if is_whole else value
        others = {"max_tokens": value} if name == "min_tokens" and value else {}
        assert getattr(SamplingParams(**{name: value}, **others), name) == value
    with pytest.raises(RequestError, match=f"{name} is "):
        SamplingParams(**{name: int(smallest) - 1})

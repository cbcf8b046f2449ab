"""The n-gram column beside a slow and obvious one, made of dictionaries."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from charrnn.training import ngram
from charrnn.training.ngram import Smoothing, discounts, ngram_losses, ngram_probs

Tokens = npt.NDArray[np.integer[Any]]
Counts = dict[tuple[int, ...], int]
SHAKESPEARE = Path(__file__).parents[4] / "shared" / "data" / "tinyshakespeare.txt"
SMOOTHINGS: tuple[Smoothing, ...] = ("kneser-ney", "witten-bell")


START = -1  # of a document


class Slow:
    """An n-gram model that looks at all it has counted for every probability."""

    def __init__(self, texts: list[list[int]], vocab_size: int, max_order: int, smoothing: str) -> None:
        self.vocab_size, self.smoothing = vocab_size, smoothing
        self.raw: list[Counts] = [
            Counter(
                tuple(text[i : i + n])
                for text in texts
                for i in range(len(text) - n + 1)
                if text[i : i + n] != [START]
            )
            for n in range(max_order + 2)
        ]
        self.kinds: list[Counts] = [
            Counter(gram[1:] for gram in self.raw[n + 1])
            + Counter({gram: count for gram, count in self.raw[n].items() if gram[:1] == (START,)})
            for n in range(max_order + 1)
        ]

    def prob(self, history: tuple[int, ...], token: int, *, is_top: bool = True) -> float:
        n = len(history) + 1
        lower = 1 / self.vocab_size if n == 1 else self.prob(history[1:], token, is_top=False)
        counts = self.raw[n] if is_top or self.smoothing == "witten-bell" else self.kinds[n]
        after = {gram[-1]: count for gram, count in counts.items() if gram[:-1] == history}
        if not after:
            return lower
        if self.smoothing == "witten-bell":
            return (after.get(token, 0) + len(after) * lower) / (sum(after.values()) + len(after))
        taken = discounts(np.array(list(counts.values())))
        off = {token: taken[min(count, 3)] for token, count in after.items()}
        own = after.get(token, 0) - off.get(token, 0.0)
        return (own + sum(off.values()) * lower) / sum(after.values())


def some_text(rng: np.random.Generator, num_tokens: int, vocab_size: int) -> Tokens:
    """Words of a few symbols, again and again."""
    words = [rng.integers(0, vocab_size, rng.integers(1, 6)) for _ in range(12)]
    return np.concatenate([words[i] for i in rng.integers(0, 12, num_tokens + 1)])[:num_tokens].astype(
        np.uint16
    )


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize(
    ("vocab_size", "num_tokens"), [(3, 80), (7, 300), (65536, 250), (1, 9), (5, 0), (5, 1)]
)
def test_every_probability_is_that_of_the_slow_model(
    smoothing: Smoothing, vocab_size: int, num_tokens: int
) -> None:
    rng = np.random.default_rng(vocab_size + num_tokens)
    train = some_text(rng, num_tokens, vocab_size)
    text = np.concatenate([train[40:70], some_text(rng, 40, vocab_size), train[:20]])
    slow = Slow([train.tolist()], vocab_size, 8, smoothing)
    found = list(ngram_probs(train, text, vocab_size, smoothing=smoothing))
    assert len(found) == 8
    for order, probs in enumerate(found, 1):
        expected = [
            # The first symbols have a shorter history: there the model is the lower one of this order.
            _expected(slow, tuple(text[max(0, at - order + 1) : at].tolist()), int(text[at]), order)
            for at in range(1, len(text))
        ]
        np.testing.assert_allclose(probs, expected, rtol=1e-9)


def documents_of(tokens: Tokens, end: int) -> list[list[int]]:
    """Each with its start and its end; the last may have none."""
    found = [[START]]
    for token in tokens.tolist():
        if found[-1][-1] == end:
            found.append([START])
        found[-1].append(token)
    return found


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_documents_are_predicted_each_from_itself(smoothing: Smoothing) -> None:
    """The start of a document is a symbol to predict from, and what stood before it is not."""
    rng, end = np.random.default_rng(4), 2
    train, text = some_text(rng, 300, 6), some_text(rng, 80, 6)
    slow = Slow(documents_of(train, end), 6, 8, smoothing)
    for order, probs in enumerate(ngram_probs(train, text, 6, end_token=end, smoothing=smoothing), 1):
        expected = [
            _expected(slow, tuple(document[max(0, at - order + 1) : at]), document[at], order)
            for document in documents_of(text, end)
            for at in range(1, len(document))
        ]
        np.testing.assert_allclose(probs, expected, rtol=1e-9)


def test_the_order_of_documents_says_nothing() -> None:
    rng = np.random.default_rng(5)
    names = [np.append(some_text(rng, int(rng.integers(0, 9)), 6), 6) for _ in range(60)]
    train, text, turned = (np.concatenate(part) for part in (names[:40], names[40:], names[:39:-1]))
    losses = ngram_losses(train, text, 7, end_token=6)
    assert losses.num_tokens == len(text)
    assert ngram_losses(train, turned, 7, end_token=6).nats == pytest.approx(losses.nats, rel=1e-12)


def _expected(slow: Slow, history: tuple[int, ...], token: int, order: int) -> float:
    return slow.prob(history, token, is_top=len(history) == order - 1)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_probabilities_of_all_symbols_sum_to_one(smoothing: Smoothing) -> None:
    """Those never seen included: symbols 7 to 10 are in no text that is counted."""
    rng = np.random.default_rng(1)
    train = some_text(rng, 400, 7)
    for history in (train[5:13], rng.integers(0, 7, 8), np.array([10, 3, 1, 9, 0, 2, 2, 1])):
        rows = [
            [probs[-1] for probs in ngram_probs(train, np.append(history, token), 11, smoothing=smoothing)]
            for token in range(11)
        ]
        assert np.min(rows) > 0
        np.testing.assert_allclose(np.sum(rows, axis=0), np.ones(8), rtol=1e-12)


def test_keys_that_do_not_fit_are_ranked(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    train, text = some_text(rng, 500, 30), some_text(rng, 100, 30)
    at_once = ngram_losses(train, text, 30)
    monkeypatch.setattr("charrnn.training.grams._KEY_BITS", 16)
    assert ngram_losses(train, text, 30) == at_once


def test_what_is_left_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    train, text = some_text(rng, 500, 5), some_text(rng, 100, 5)
    whole = ngram_losses(train, text, 5)
    assert (whole.left_out, whole.num_tokens) == ("", 99)
    monkeypatch.setattr(ngram, "MAX_TRAIN_TOKENS", 200)
    monkeypatch.setattr(ngram, "MAX_EVAL_TOKENS", 50)
    cut = ngram_losses(train, text, 5)
    assert cut.nats == ngram_losses(train[300:], text[:50], 5).nats
    assert cut.left_out == (
        "counted on the last 200 of 500 training symbols, scored on the first 50 of 100 symbols"
    )


def test_losses_of_nothing_and_of_foreign_ids_are_refused() -> None:
    tokens = np.array([0, 1, 2], np.uint8)
    with pytest.raises(ValueError, match="two tokens or more, not 1"):
        ngram_losses(tokens, tokens[:1], 3)
    with pytest.raises(ValueError, match="token id 2: give ids below vocab_size 2"):
        ngram_losses(tokens, tokens, 2)


def test_as_json() -> None:
    tokens = np.array([0, 1] * 20, np.uint8)
    losses = ngram_losses(tokens, tokens, 2, max_order=3)
    told = losses.to_json()
    assert told["best_order"] == losses.best_order == 1 + int(np.argmin(losses.nats))
    assert told["bpc"] == pytest.approx([nats / math.log(2) for nats in losses.nats])


@pytest.mark.skipif(not SHAKESPEARE.exists(), reason="there is no ../shared/data/tinyshakespeare.txt")
def test_known_figures_of_tiny_shakespeare() -> None:
    """The same text: 1.44 or 1.73 nats, by the split alone (Witten-Bell: 1.48 or 1.965)."""
    text = SHAKESPEARE.read_text()
    alphabet = sorted(set(text))
    ids = np.searchsorted(alphabet, list(text)).astype(np.uint8)
    streams = ids[: len(ids) // 2500 * 2500].reshape(50, -1)  # char-rnn: 50 streams in windows of 50
    at = int(streams.shape[1] // 50 * 0.95) * 50
    char_rnn = streams[:, :at].ravel(), streams[:, at:].ravel()
    torch_rnn = ids[: len(ids) - 2 * (len(ids) // 10)], ids[len(ids) - len(ids) // 10 :]
    figures = {
        smoothing: [
            ngram_losses(*split, 65, max_order=7, smoothing=smoothing) for split in (char_rnn, torch_rnn)
        ]
        for smoothing in SMOOTHINGS
    }
    assert [loss.nats[4] for loss in figures["witten-bell"]] == pytest.approx([1.4773, 1.9646], abs=1e-4)
    assert [loss.nats[4] for loss in figures["kneser-ney"]] == pytest.approx([1.4387, 1.7280], abs=1e-4)
    assert [loss.best_order for loss in figures["kneser-ney"]] == [7, 7]

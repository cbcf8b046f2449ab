"""Character n-gram models of every order at once: the baseline beside which a loss means something.

Interpolated down to the uniform distribution, so that every symbol has a probability:

    kneser-ney   modified Kneser-Ney (Chen & Goodman 1999, "An empirical study of smoothing techniques for
                 language modeling"): the better one
    witten-bell  method C of Witten & Bell 1991

Knows arrays of token ids, not text, models or runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from charrnn.training.grams import Grams, Level, Tokens

Smoothing = Literal["kneser-ney", "witten-bell"]
Floats: TypeAlias = npt.NDArray[np.float64]
_Counts: TypeAlias = npt.NDArray[np.integer[Any]]

MAX_ORDER = 8
# Counting takes about 60 bytes a token: 1.2 GB and less than a minute for this many.
MAX_TRAIN_TOKENS = 20_000_000
MAX_EVAL_TOKENS = 2_000_000


@dataclass(frozen=True)
class NgramLosses:
    """Mean nats of each order, from 1 on, over ``num_tokens`` predictions.

    ``train_used`` of ``train_tokens`` were counted, the last ones; ``eval_used`` of ``eval_tokens`` were
    scored, the first ones: all of documents, of another text all but the first.
    """

    smoothing: Smoothing
    nats: tuple[float, ...]
    train_used: int
    train_tokens: int
    eval_used: int
    eval_tokens: int
    is_documents: bool = False

    @property
    def num_tokens(self) -> int:
        """Predictions made."""
        return self.eval_used - (not self.is_documents)

    @property
    def best_order(self) -> int:
        """The order with the lowest loss."""
        return 1 + self.nats.index(self.best_nats)

    @property
    def best_nats(self) -> float:
        """The lowest loss."""
        return min(self.nats)

    @property
    def left_out(self) -> str:
        """What was not counted or not scored, for people; empty if nothing."""
        told = []
        if self.train_used < self.train_tokens:
            told.append(f"counted on the last {self.train_used:,} of {self.train_tokens:,} training symbols")
        if self.eval_used < self.eval_tokens:
            told.append(f"scored on the first {self.eval_used:,} of {self.eval_tokens:,} symbols")
        return ", ".join(told)

    def to_json(self) -> dict[str, Any]:
        """Losses by order, and what they are of."""
        return {
            "smoothing": self.smoothing,
            "nats": list(self.nats),
            "bpc": [nats / math.log(2) for nats in self.nats],
            "best_order": self.best_order,
            "num_tokens": self.num_tokens,
            "train_tokens": self.train_tokens,
            "train_used": self.train_used,
            "eval_tokens": self.eval_tokens,
            "eval_used": self.eval_used,
        }


def ngram_losses(
    train: Tokens,
    text: Tokens,
    vocab_size: int,
    *,
    end_token: int | None = None,
    max_order: int = MAX_ORDER,
    smoothing: Smoothing = "kneser-ney",
) -> NgramLosses:
    """Count n-grams in ``train`` and score ``text`` with the model of each order from 1 to ``max_order``.

    A symbol is predicted from up to n - 1 symbols before it in ``text``. With ``end_token`` both are
    documents, each ending with it: a symbol is then predicted from its own document alone, and the start of
    one is a symbol to predict from. Of very long texts the last ``MAX_TRAIN_TOKENS`` are counted and the
    first ``MAX_EVAL_TOKENS`` scored; the result says so.

    Raises:
        ValueError: ``text`` has fewer than two tokens, or an id is not below ``vocab_size``.
    """
    used, scored = train[-MAX_TRAIN_TOKENS:], text[:MAX_EVAL_TOKENS]
    probs = ngram_probs(
        used, scored, vocab_size, end_token=end_token, max_order=max_order, smoothing=smoothing
    )
    nats = tuple(float(-np.log(row).mean()) for row in probs)
    is_documents = end_token is not None
    return NgramLosses(smoothing, nats, len(used), len(train), len(scored), len(text), is_documents)


def ngram_probs(
    train: Tokens,
    text: Tokens,
    vocab_size: int,
    *,
    end_token: int | None = None,
    max_order: int = MAX_ORDER,
    smoothing: Smoothing = "kneser-ney",
) -> Iterator[Floats]:
    """For each order from 1 on, the probability of every symbol of documents, or of ``text`` but its first.

    Raises:
        ValueError: as ``ngram_losses``.
    """
    if len(text) < 2:
        raise ValueError(f"a loss needs two tokens or more, not {len(text)}")
    estimate = _ESTIMATES[smoothing]
    lower = np.full(len(text) - (end_token is None), 1.0 / vocab_size)
    for level in Grams(train, text, vocab_size, max_order, end_token).levels():
        probs, lower = estimate(level, lower)
        yield probs


def _witten_bell(level: Level, lower: Floats) -> tuple[Floats, Floats]:
    """The lower order's share is as if every kind of successor had been its own once more."""
    kinds = _sums(level, level.counts > 0)
    total = _sums(level, level.counts) + kinds
    probs = _mixed(level, level.counts, kinds, total, lower)
    return probs, probs


def _kneser_ney(level: Level, lower: Floats) -> tuple[Floats, Floats]:
    """Of the top order the counts are of n-grams, of those below it of the kinds of symbols before them."""
    return _discounted(level, level.counts, lower), _discounted(level, level.num_before, lower)


def _discounted(level: Level, counts: _Counts, lower: Floats) -> Floats:
    taken = discounts(counts)[np.minimum(counts, 3)]  # (G,)
    return _mixed(level, counts - taken, _sums(level, taken), _sums(level, counts), lower)


def discounts(counts: _Counts) -> Floats:
    """What is taken off counts of 0, 1, 2, and 3 or more, ``(4,)`` (Chen & Goodman 1999, equation 26).

    Half the count where too few n-grams have it to tell, as for the letters of an alphabet.
    """
    n1, n2, n3, n4 = (int(np.count_nonzero(counts == count)) for count in (1, 2, 3, 4))
    if min(n1, n2, n3) == 0:
        return np.array([0.0, 0.5, 1.0, 1.5])
    share = n1 / (n1 + 2 * n2)
    told = np.array([0.0, 1 - 2 * share * n2 / n1, 2 - 3 * share * n3 / n2, 3 - 4 * share * n4 / n3])
    whole = np.arange(4.0)
    return np.where((told > 0) & (told < whole), told, whole / 2)


def _sums(level: Level, values: npt.NDArray[Any]) -> Floats:
    """By context, ``(C,)``."""
    return np.bincount(level.context, values, level.num_contexts).astype(np.float64, copy=False)


def _mixed(level: Level, counts: npt.NDArray[Any], rest: Floats, total: Floats, lower: Floats) -> Floats:
    """``(count + rest * lower) / total``; the lower order alone where the context was never seen."""
    grams = level.scored[level.is_scored]
    contexts = level.context[grams]
    own, whole = counts[grams], total[contexts]
    probs = lower.copy()
    mixed = own + rest[contexts] * lower[level.is_scored]
    probs[level.is_scored] = np.divide(mixed, whole, out=lower[level.is_scored], where=whole > 0)
    return probs


_ESTIMATES: dict[Smoothing, Callable[[Level, Floats], tuple[Floats, Floats]]] = {
    "kneser-ney": _kneser_ney,
    "witten-bell": _witten_bell,
}

"""All n-grams of a text, counted: one sort of its positions by the symbols that end there.

Positions are sorted by the symbol they hold, then by the one before it, and so on. The n-grams that end in w
are then neighbours, those with the same symbol before them too, and so on: every order is a cut of one
sequence. The text to be scored is sorted along, and not counted.

Knows arrays of token ids; the arithmetic of probabilities is in ngram.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Tokens: TypeAlias = npt.NDArray[np.integer[Any]]
Ints: TypeAlias = npt.NDArray[np.int32]
Bools: TypeAlias = npt.NDArray[np.bool_]
_Keys: TypeAlias = npt.NDArray[np.int64]

# Bits of a key that are sorted at once.
_KEY_BITS = 63


@dataclass(frozen=True)
class Level:
    """The G n-grams of one order n in both texts.

    ``counts`` are those in the training text, 0 for an n-gram that stands only in the other; ``num_before``
    is in how many ways an n-gram is continued to its left there, or its count where nothing can stand left of
    it: at the start of a document. ``context`` numbers the n - 1 symbols before the last one, below
    ``num_contexts``. ``scored`` has the n-gram of each of P predictions, of which ``is_scored`` have n - 1
    symbols before them.
    """

    counts: Ints  # (G,)
    num_before: Ints  # (G,)
    context: Ints  # (G,)
    num_contexts: int
    scored: Ints  # (P,)
    is_scored: Bools  # (P,)


class Grams:
    """Sorts ``train`` and ``text`` together, up to ``max_order`` symbols deep and one more.

    All symbols of ``text`` but the first are predicted. With ``end_token`` both are documents, each of which
    ends with it: n-grams may begin at the start of a document, none goes across it, and every symbol is
    predicted.

    Raises:
        ValueError: an id is not below ``vocab_size``.
    """

    def __init__(
        self, train: Tokens, text: Tokens, vocab_size: int, max_order: int, end_token: int | None = None
    ) -> None:
        for part in (train, text):
            if len(part) and not 0 <= int(part.min()) <= int(part.max()) < vocab_size:
                raise ValueError(f"token id {int(part.max())}: give ids below vocab_size {vocab_size}")
        walled = [_walled(part, vocab_size, end_token) for part in (train, text)]
        self._wall = vocab_size  # no n-gram goes across it
        self._tokens = np.concatenate(walled)  # (N,)
        self._text_at = len(walled[0])
        self._max_order = max_order
        self._order = _sorted_positions(self._tokens, vocab_size + 1, max_order + 1)  # (N,)
        self._reach = _reach(self._tokens == vocab_size, documents=end_token is not None)
        first = self._text_at + (2 if end_token is None else 1)
        self._predicted = first + np.flatnonzero(self._tokens[first:] != vocab_size)  # (P,)

    def levels(self) -> Iterator[Level]:
        """One level after the other, from order 1 on."""
        order, last = self._order, len(self._order)
        starts = np.zeros(last, np.bool_)  # where in the order another n-gram begins
        starts[0] = True
        contexts, num_contexts = np.zeros(last, np.int32), 1  # of the symbol after each position
        self._refine(starts, 0)
        for n in range(1, self._max_order + 1):
            firsts = np.flatnonzero(starts)
            ids = np.empty(last, np.int32)  # by position
            ids[order] = np.cumsum(starts, dtype=np.int32) - 1
            counts = self._count(firsts, n)
            self._refine(starts, n)
            is_start = self._tokens[np.maximum(order[firsts] - (n - 1), 0)] == self._wall
            num_before = np.where(is_start, counts, self._count_kinds(starts, firsts, n + 1))
            # A wall's n-gram has no symbol before it; its context is never asked for.
            before = np.maximum(order[firsts] - 1, 0)
            at = self._predicted
            yield Level(counts, num_before, contexts[before], num_contexts, ids[at], self._reach[at] >= n)
            contexts, num_contexts = ids, len(firsts)

    def _refine(self, starts: Bools, depth: int) -> None:
        """Mark where neighbours differ in the symbol ``depth`` before the last."""
        symbols = self._tokens[np.maximum(self._order - depth, 0)]
        starts[1:] |= symbols[1:] != symbols[:-1]

    def _is_whole(self, n: int) -> Bools:
        """Which positions, in their order, end an n-gram of the training text."""
        return (self._order < self._text_at) & (self._reach[self._order] >= n)

    def _count(self, firsts: npt.NDArray[np.intp], n: int) -> Ints:
        return np.add.reduceat(self._is_whole(n), firsts, dtype=np.int32)

    def _count_kinds(self, starts: Bools, firsts: npt.NDArray[np.intp], n: int) -> Ints:
        """How many n-grams with a count begin between ``firsts``."""
        finer = np.flatnonzero(starts)
        has_count = np.zeros(len(starts), np.bool_)
        has_count[finer] = self._count(finer, n) > 0
        return np.add.reduceat(has_count, firsts, dtype=np.int32)


def _walled(tokens: Tokens, wall: int, end_token: int | None) -> Ints:
    """A wall before a text, or before each document."""
    whole = tokens.astype(np.int32)
    if end_token is None or not len(whole):
        return np.insert(whole, 0, wall)
    starts = np.flatnonzero(whole[:-1] == end_token) + 1
    return np.insert(whole, np.append(0, starts), wall)


def _reach(is_wall: Bools, *, documents: bool) -> Ints:
    """The longest n-gram that may end at each position; of documents it may begin with the wall."""
    at = np.arange(len(is_wall), dtype=np.int32)
    since_wall = at - np.maximum.accumulate(np.where(is_wall, at, 0))
    return np.where(is_wall, 0, since_wall + documents).astype(np.int32)


def _sorted_positions(tokens: Ints, num_symbols: int, depth: int) -> Ints:
    """Positions by their symbol, the one before it, and so on, ``depth`` symbols in all.

    As many symbols as fit are packed into a key; where that is not all, keys become their ranks, which are
    packed with the next symbols.
    """
    bits = max(1, (num_symbols - 1).bit_length())
    num_packed, ranks, rank_bits = 0, np.zeros(len(tokens), np.int64), 0
    while True:
        num_new = min((_KEY_BITS - rank_bits) // bits, depth - num_packed)
        keys = _packed(tokens, ranks, range(num_packed, num_packed + num_new), bits)
        num_packed += num_new
        order = np.argsort(keys)
        if num_packed == depth:
            return order.astype(np.int32)
        ranks, rank_bits = _ranked(keys, order)


def _packed(tokens: Ints, ranks: _Keys, depths: range, bits: int) -> _Keys:
    keys = ranks
    for depth in depths:
        keys <<= bits
        keys[depth:] |= tokens[: len(tokens) - depth]  # before the first stand zeros: a wall is there too
    return keys


def _ranked(keys: _Keys, order: npt.NDArray[np.intp]) -> tuple[_Keys, int]:
    is_new = np.empty(len(keys), np.bool_)
    ordered = keys[order]
    is_new[0] = False
    np.not_equal(ordered[1:], ordered[:-1], out=is_new[1:])
    ranks = np.empty(len(keys), np.int64)
    ranks[order] = np.cumsum(is_new)
    return ranks, int(ranks[order[-1]]).bit_length()

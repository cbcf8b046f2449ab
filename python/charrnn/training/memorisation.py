"""Has it only learnt by heart? What of a text stands verbatim in the training text.

Exact: runs are looked up by a hash that is the same for the same symbols, and every find is compared symbol
by symbol. Knows arrays of token ids, not where they come from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Tokens: TypeAlias = npt.NDArray[np.integer[Any]]
_Hashes: TypeAlias = npt.NDArray[np.uint64]
_Positions: TypeAlias = npt.NDArray[np.int64]

LENGTHS = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)
# Training symbols that are hashed at once: 8 MB an array.
_CHUNK = 2**20
_BASE = 0x9E3779B97F4A7C15  # odd, so that its powers have inverses modulo 2^64
_FILTER_BITS = 22


@dataclass(frozen=True)
class Longest:
    """The longest run that is copied: ``length`` symbols at ``at`` of text ``index`` and ``train_at``."""

    length: int
    index: int
    at: int
    train_at: int


@dataclass(frozen=True)
class Memorisation:
    """What of ``num_texts`` texts of ``num_tokens`` symbols in all is in the training text.

    ``novel`` maps a length to the share of the places at which a substring of that length begins which is
    nowhere in the training text; lengths that fit into no text are left out.
    """

    num_texts: int
    num_tokens: int
    longest: Longest | None
    novel: dict[int, float]


@dataclass(frozen=True)
class Documents:
    """Of ``num_documents`` whole texts: those that are no training document, and those that came before."""

    num_documents: int
    num_novel: int
    num_duplicates: int

    @property
    def novel(self) -> float:
        """Share of those that are no training document."""
        return self.num_novel / self.num_documents


def memorised(texts: Sequence[Tokens], train: Tokens, lengths: Sequence[int] = LENGTHS) -> Memorisation:
    """Compare texts, none of whose substrings go on into the next, with the training text."""
    novel = {}
    for length in lengths:
        if any(len(text) >= length for text in texts):
            found = np.concatenate([finds for _, finds in _find_all(texts, train, length)])
            novel[length] = float(np.mean(found < 0))
    return Memorisation(len(texts), sum(map(len, texts)), _longest(texts, train), novel)


def documents(generated: Sequence[Tokens], train: Sequence[Tokens]) -> Documents:
    """Compare whole documents: how many are no training document, how many were there before."""
    known = {_as_bytes(document) for document in train}
    counts = Counter(_as_bytes(document) for document in generated)
    num_novel = sum(count for document, count in counts.items() if document not in known)
    return Documents(len(generated), num_novel, len(generated) - len(counts))


def find(needles: Tokens, train: Tokens, length: int) -> _Positions:
    """Where each run of ``length`` symbols of ``needles`` stands in ``train``; -1: nowhere. ``(M - n + 1,)``.

    One place of several is told. Memory does not grow with ``train``.
    """
    hashes = _run_hashes(needles, length)
    found = np.full(len(hashes), -1, np.int64)
    open_ = np.arange(len(hashes))  # not found yet
    for start, chunk in _chunks(train, length):
        if not len(open_):
            break
        places = _places(hashes[open_], chunk, length)
        hits = np.flatnonzero(places >= 0)
        is_same = _is_same(needles, open_[hits], chunk, places[hits], length)
        for collided in hits[~is_same]:
            places[collided] = _search(needles, int(open_[collided]), chunk, length)
        found[open_] = np.where(places >= 0, places + start, -1)
        open_ = open_[places < 0]
    return found


def _find_all(texts: Sequence[Tokens], train: Tokens, length: int) -> Iterator[tuple[int, _Positions]]:
    """Finds in each text that is long enough, with its index; the training text is read once."""
    indices = [index for index, text in enumerate(texts) if len(text) >= length]
    joined = np.concatenate([texts[index] for index in indices]) if indices else np.empty(0, np.int64)
    finds, at = find(joined, train, length), 0
    for index in indices:
        yield index, finds[at : at + len(texts[index]) - length + 1]
        at += len(texts[index])


def _longest(texts: Sequence[Tokens], train: Tokens) -> Longest | None:
    """By doubling, then halving: where a run of a length is found, shorter ones are."""
    best, length, too_long = None, 1, 1 + max(map(len, texts), default=0)
    while length < too_long:
        if longest := _first(texts, train, length):
            best, length = longest, 2 * length
        else:
            too_long = length
    while best and too_long - best.length > 1:
        length = (best.length + too_long) // 2
        if longest := _first(texts, train, length):
            best = longest
        else:
            too_long = length
    return best


def _first(texts: Sequence[Tokens], train: Tokens, length: int) -> Longest | None:
    for index, finds in _find_all(texts, train, length):
        if len(hits := np.flatnonzero(finds >= 0)):
            return Longest(length, index, int(hits[0]), int(finds[hits[0]]))
    return None


def _chunks(train: Tokens, length: int) -> Iterator[tuple[int, Tokens]]:
    """Pieces that share ``length`` - 1 symbols, and where each begins."""
    for start in range(0, len(train) - length + 1, _CHUNK):
        yield start, np.asarray(train[start : start + _CHUNK + length - 1])


def _run_hashes(tokens: Tokens, length: int) -> _Hashes:
    """A polynomial in ``_BASE`` modulo 2^64 for each run of ``length`` symbols, ``(M - n + 1,)``."""
    num_tokens = len(tokens)
    powers = np.cumprod(np.full(num_tokens, _BASE, np.uint64))
    inverses = np.cumprod(np.full(num_tokens, pow(_BASE, -1, 2**64), np.uint64))
    sums = np.zeros(num_tokens + 1, np.uint64)
    np.cumsum((tokens.astype(np.uint64) + 1) * powers, out=sums[1:])
    num_runs = max(0, num_tokens + 1 - length)
    hashes = (sums[num_tokens + 1 - num_runs :] - sums[:num_runs]) * inverses[:num_runs]
    return hashes.astype(np.uint64, copy=False)


def _places(hashes: _Hashes, chunk: Tokens, length: int) -> _Positions:
    """Where in ``chunk`` a run has each hash; -1: nowhere."""
    runs = _run_hashes(chunk, length)
    shift = np.uint64(64 - _FILTER_BITS)
    may_be = np.zeros(1 << _FILTER_BITS, np.bool_)  # small enough for a cache, and right for most runs
    may_be[hashes >> shift] = True
    likely = np.flatnonzero(may_be[runs >> shift])
    wanted, which = np.unique(hashes, return_inverse=True)
    at = np.minimum(np.searchsorted(wanted, runs[likely]), len(wanted) - 1)
    is_hit = wanted[at] == runs[likely]
    places = np.full(len(wanted), -1, np.int64)
    places[at[is_hit]] = likely[is_hit]
    return places[which]


def _is_same(
    needles: Tokens, starts: _Positions, chunk: Tokens, places: _Positions, length: int
) -> npt.NDArray[np.bool_]:
    """Whether runs of both texts are equal, symbol by symbol."""
    same = np.ones(len(starts), np.bool_)
    for offset in range(length):
        same &= needles[starts + offset] == chunk[places + offset]
    return same


def _search(needles: Tokens, start: int, chunk: Tokens, length: int) -> int:
    """Where a run stands in ``chunk``, looked for without hashes; -1: nowhere."""
    alive = np.arange(len(chunk) - length + 1)
    for offset in range(length):
        alive = alive[chunk[alive + offset] == needles[start + offset]]
    return int(alive[0]) if len(alive) else -1


def _as_bytes(document: Tokens) -> bytes:
    return np.asarray(document, np.uint32).tobytes()

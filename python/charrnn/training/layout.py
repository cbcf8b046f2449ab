"""Where each token of a text goes in the file of tokens, so that every part of the split is one range of it.

Knows positions and ends of documents, not what the tokens mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from charrnn.errors import DataError
from charrnn.training.config import SplitName
from charrnn.training.splits import PERIOD, Split, Tokens, cuts_of, part_names, ranges

# The turns, of every PERIOD documents, that an interleaved split keeps from training.
_VALIDATION_TURN, _TEST_TURN = 9, 19


class Layout(Protocol):
    """Takes a text piece by piece."""

    def route(self, tokens: Tokens) -> Iterator[tuple[int, Tokens]]:
        """Runs of the next tokens, each with the place in the file at which it begins."""

    def split(self) -> Split:
        """The parts, when the whole text has passed."""


class RangeLayout:
    """A text without documents: whole ranges of it are moved."""

    def __init__(self, name: SplitName, num_tokens: int) -> None:
        self._split = Split.of(name, num_tokens)
        self._position = 0
        free = {part: start for part, (start, _) in self._split.parts.items()}
        self._moves: list[tuple[int, int, int]] = []
        for part, start, end in ranges(name, num_tokens):
            self._moves.append((start, end, free[part]))
            free[part] += end - start

    def route(self, tokens: Tokens) -> Iterator[tuple[int, Tokens]]:
        """A run for each range that the piece touches."""
        first, self._position = self._position, self._position + len(tokens)
        for start, end, place in self._moves:
            low, high = max(start, first), min(end, self._position)
            if low < high:
                yield place + low - start, tokens[low - first : high - first]

    def split(self) -> Split:
        """The parts, known from the beginning."""
        return self._split


class DocumentLayout:
    """Whole documents are moved, or stay and move the cut to their border.

    Args:
        name: of the split. ``interleaved``: of every 20 documents the tenth is for validation and the last
            for test, for lists are often sorted. Otherwise a document belongs where it begins.
        end_token: the token that ends a document.
        num_tokens: of the whole text, ends included.
        sizes: tokens of every first, second ... of ``PERIOD`` documents.
    """

    def __init__(self, name: SplitName, end_token: int, num_tokens: int, sizes: tuple[int, ...]) -> None:
        self._name, self._names, self._end = name, part_names(name), end_token
        self._cuts = np.array(cuts_of(name, num_tokens), np.int64)
        self._sizes = np.zeros(len(self._names), np.int64)
        self._position = self._number = self._begun_at = 0
        moved = np.bincount(_parts_of_turns(np.arange(PERIOD)), sizes, len(self._names)).astype(np.int64)
        self._bases = np.cumsum(moved) - moved if name == "interleaved" else None

    def route(self, tokens: Tokens) -> Iterator[tuple[int, Tokens]]:
        """One run for each part of which the piece holds anything."""
        parts, lengths = self._documents(tokens)
        position, self._position = self._position, self._position + len(tokens)
        if self._bases is None:
            yield position, tokens
        else:
            of_token = np.repeat(parts, lengths)
            for part in np.unique(parts):
                yield int(self._bases[part] + self._sizes[part]), tokens[of_token == part]
        self._sizes += np.bincount(parts, lengths, len(self._sizes)).astype(np.int64)

    def split(self) -> Split:
        """The parts.

        Raises:
            DataError: one of them got no document.
        """
        if not self._sizes.all():
            empty = self._names[int(np.argmin(self._sizes))]
            raise DataError(
                f"split {self._name} of {self._number} documents leaves {empty} without any: give more "
                "documents, --split interleaved (20 or more) or --split none"
            )
        ends = np.cumsum(self._sizes).tolist()
        parts = zip(self._names, [0, *ends[:-1]], ends, strict=True)
        return Split(self._name, {name: (start, end) for name, start, end in parts})

    def _documents(self, tokens: Tokens) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The part of each document in the piece, the first and the last maybe cut, and its tokens there."""
        ends = np.flatnonzero(tokens == self._end) + 1
        is_whole = len(ends) > 0 and ends[-1] == len(tokens)
        borders = np.concatenate(([0], ends, [] if is_whole else [len(tokens)])).astype(np.int64)
        begins = self._position + borders[:-1]
        begins[0] = self._begun_at
        numbers = self._number + np.arange(len(begins))
        self._number += len(ends)
        self._begun_at = self._position + int(ends[-1]) if len(ends) else self._begun_at
        return self._parts(numbers, begins), np.diff(borders)

    def _parts(self, numbers: npt.NDArray[np.int64], begins: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        if self._name == "interleaved":
            return _parts_of_turns(numbers % PERIOD)
        return np.searchsorted(self._cuts, begins, side="right").astype(np.int64)


def _parts_of_turns(turns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.where(turns == _VALIDATION_TURN, 1, np.where(turns == _TEST_TURN, 2, 0)).astype(np.int64)

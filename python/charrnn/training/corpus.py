"""A text as an alphabet, as counts and as a file of token ids, read in pieces so that memory stays small.

Two passes: the first counts, the second encodes. Knows nothing of batches or models.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from charrnn.errors import DataError, RequestError
from charrnn.training.files import replacing, sha256_file
from charrnn.training.layout import Layout
from charrnn.training.sources import Source
from charrnn.training.splits import PERIOD, Tokens
from charrnn.training.symbols import Codes, EndSymbolTakenError, Reading, Rules
from charrnn.vocab import Unit, Vocab

_NUM_CODES = {"char": 0x110000, "byte": 256}


@dataclass(frozen=True)
class Scan:
    """What one pass over a text tells.

    ``symbols`` are in ascending order and ``counts`` go with them. ``num_symbols`` is the number of tokens
    that it makes. Of documents: ``end`` is the code of their end symbol, ``sizes`` the tokens of every first,
    second ... of ``PERIOD`` documents, ``num_empty`` those left out.
    """

    symbols: list[int]
    counts: list[int]
    num_symbols: int
    num_bytes: int
    sha256: str
    num_replaced: int = 0
    end: int | None = None
    num_documents: int = 0
    sizes: tuple[int, ...] = ()
    num_empty: int = 0


def scan(source: Source, rules: Rules, end: int | None = None) -> Scan:
    """Read a text once.

    Args:
        source: where it is.
        rules: how it is read.
        end: the end symbol it must have; None chooses one.

    Raises:
        DataError: it cannot be read, is not UTF-8 where characters are asked for, or leaves no end symbol.
    """
    if not rules.separator:
        return _scan(source, rules, None)
    for candidate in rules.end_symbols() if end is None else (end,):
        try:
            return _scan(source, rules, candidate)
        except EndSymbolTakenError:
            continue
    raise DataError(_no_end(source, rules, end))


def sha256_of(source: Source) -> str:
    """The hash of a text's bytes."""
    digest = hashlib.sha256()
    for piece in source.pieces():
        digest.update(piece)
    return digest.hexdigest()


def make_vocab(source: Source, seen: Scan, unit: Unit) -> Vocab:
    """The vocabulary of a scanned text.

    Raises:
        DataError: more distinct symbols than a vocabulary may hold.
    """
    try:
        return Vocab(seen.symbols, unit)
    except RequestError as error:
        raise DataError(f"corpus {source.name}: {error}") from error


def token_dtype(vocab: Vocab) -> np.dtype[np.unsignedinteger[Any]]:
    """The smallest unsigned type that holds every token id."""
    return _smallest(len(vocab) - 1)


def encoded(source: Source, rules: Rules, vocab: Vocab, seen: Scan) -> Iterator[Tokens]:
    """The token ids of a scanned text, about a million at a time.

    Raises:
        DataError: a symbol is not in the vocabulary, or the text is no longer what was scanned.
    """
    # One number above all token ids says "unknown"; so a maximum over an array finds what is missing.
    unknown = len(vocab)
    table = np.full(_NUM_CODES[rules.unit], unknown, _smallest(unknown))
    table[vocab.symbols] = np.arange(unknown)
    dtype, num_tokens = token_dtype(vocab), 0
    reading = Reading(source, rules, seen.end)
    for codes in reading:
        tokens = table.take(codes, mode="clip")
        if tokens.max() == unknown:
            at = int(np.argmax(tokens))
            raise DataError(_unknown(source, rules.unit, int(codes[at]), num_tokens + at))
        num_tokens += len(tokens)
        yield tokens.astype(dtype, copy=False)
    if reading.sha256 != seen.sha256:
        raise DataError(f"corpus {source.name} changed while it was read: start when nobody writes to it")


def write_tokens(tokens: Iterator[Tokens], layout: Layout, path: Path) -> str:
    """Write token ids where a layout has their place; the sha256 of the file."""
    with replacing(path) as file:
        for piece in tokens:
            for place, run in layout.route(piece):
                file.seek(place * run.itemsize)
                file.write(run.tobytes())
    return sha256_file(path)


def open_tokens(path: Path, dtype: str) -> Tokens:
    """Map a file of token ids into memory, read-only."""
    if os.path.getsize(path) == 0:
        return np.empty(0, dtype)
    return np.memmap(path, dtype=dtype, mode="r")


def _scan(source: Source, rules: Rules, end: int | None) -> Scan:
    counts = np.zeros(_NUM_CODES[rules.unit], np.int64)
    documents = _Documents(end)
    reading = Reading(source, rules, end)
    for codes in reading:
        found = np.bincount(codes)
        counts[: len(found)] += found
        if end is not None:
            documents.count(codes)
    symbols = np.flatnonzero(counts)
    return Scan(
        symbols=symbols.tolist(),
        counts=counts[symbols].tolist(),
        num_symbols=int(counts.sum()),
        num_bytes=reading.num_bytes,
        sha256=reading.sha256,
        num_replaced=reading.num_replaced,
        end=end,
        num_documents=documents.number,
        sizes=() if end is None else tuple(documents.sizes.tolist()),
        num_empty=reading.num_empty,
    )


class _Documents:
    """Counts documents, and the symbols of every PERIOD-th, without remembering any."""

    def __init__(self, end: int | None) -> None:
        self.number = 0
        self.sizes: npt.NDArray[np.int64] = np.zeros(PERIOD, np.int64)
        self._end, self._begun = end, 0

    def count(self, codes: Codes) -> None:
        ends = np.flatnonzero(codes == self._end)
        lengths = np.diff(ends, prepend=-1 - self._begun)
        turns = (self.number + np.arange(len(ends))) % PERIOD
        # Sums in double precision are exact below 2**53.
        self.sizes += np.bincount(turns, lengths, PERIOD).astype(np.int64)
        self.number += len(ends)
        self._begun = len(codes) - 1 - int(ends[-1]) if len(ends) else self._begun + len(codes)


def _smallest(number: int) -> np.dtype[np.unsignedinteger[Any]]:
    return np.dtype(np.uint8 if number < 256 else np.uint16 if number < 65536 else np.uint32)


def _no_end(source: Source, rules: Rules, end: int | None) -> str:
    if end is not None:
        return f"corpus {source.name} holds U+{end:04X}, which ends documents in this run: take it out"
    return (
        f"corpus {source.name}: every {rules.unit} that could stand for the end of a document occurs in it; "
        "give a --separator of one symbol"
    )


def _unknown(source: Source, unit: Unit, code: int, at: int) -> str:
    symbol = f"U+{code:04X}" if unit == "char" else f"byte 0x{code:02x}"
    return (
        f"corpus {source.name}: {symbol} at token {at} is not in the run's vocabulary: "
        "take it out of the text, or take a run whose own text has it"
    )

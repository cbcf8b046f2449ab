"""A text as bytes, as symbols and as a file of token ids, read in pieces so that memory stays small.

Every symbol counts as it stands: no newline is translated, no byte-order mark or NUL removed.
Knows nothing of splits, batches or models.
"""

from __future__ import annotations

import codecs
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from charrnn.errors import DataError, RequestError
from charrnn.training.files import replacing
from charrnn.vocab import Unit, Vocab

Tokens = npt.NDArray[np.unsignedinteger[Any]]

BUILT_IN = "pydoc-topics"
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Source:
    """Where a text comes from: a file, or with ``path`` None the help topics that Python carries."""

    path: Path | None

    @property
    def name(self) -> str:
        """The file's name, or that of the built-in corpus."""
        return BUILT_IN if self.path is None else self.path.name

    def pieces(self) -> Iterator[bytes]:
        """The bytes of the text, about 1 MiB at a time.

        Raises:
            DataError: the file cannot be read.
        """
        if self.path is None:
            yield self._topics
            return
        try:
            with open(self.path, "rb") as file:
                while piece := file.read(_PIECE_BYTES):
                    yield piece
        except OSError as error:
            raise DataError(f"cannot read corpus {self.path}: {error.strerror}") from error

    @cached_property
    def _topics(self) -> bytes:
        try:
            from pydoc_data.topics import topics
        except ImportError:
            raise DataError(
                "the built-in corpus is pydoc_data, which this Python lacks: give a text file"
            ) from None
        return "".join(topics[name] for name in sorted(topics)).encode()


@dataclass(frozen=True)
class Scan:
    """What one pass over a text tells."""

    symbols: list[int]
    num_symbols: int
    num_bytes: int
    sha256: str


def scan(source: Source, unit: Unit) -> Scan:
    """Read a text once: its alphabet in ascending order, its length and its hash.

    Raises:
        DataError: it cannot be read, or is not UTF-8 where characters are asked for.
    """
    digest = hashlib.sha256()
    alphabet: set[Any] = set()
    num_symbols = num_bytes = 0
    for piece, symbols in _pieces(source, unit):
        digest.update(piece)
        alphabet.update(symbols)
        num_symbols += len(symbols)
        num_bytes += len(piece)
    codes = sorted(map(ord, alphabet) if unit == "char" else alphabet)
    return Scan(codes, num_symbols, num_bytes, digest.hexdigest())


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
    return np.dtype(np.uint8 if len(vocab) <= 256 else np.uint16 if len(vocab) <= 65536 else np.uint32)


def write_tokens(source: Source, vocab: Vocab, path: Path) -> tuple[int, str]:
    """Encode a text into a file of token ids; the number of tokens and the file's sha256.

    Raises:
        DataError: a symbol is not in the vocabulary, or the text cannot be read.
    """
    digest, num_tokens = hashlib.sha256(), 0
    dtype = token_dtype(vocab)
    with replacing(path) as file:
        for _, symbols in _pieces(source, vocab.unit):
            encoded = _encode(symbols, vocab, num_tokens, source.name).astype(dtype).tobytes()
            file.write(encoded)
            digest.update(encoded)
            num_tokens += len(symbols)
    return num_tokens, digest.hexdigest()


def open_tokens(path: Path, dtype: str) -> Tokens:
    """Map a file of token ids into memory, read-only."""
    if os.path.getsize(path) == 0:
        return np.empty(0, dtype)
    return np.memmap(path, dtype=dtype, mode="r")


def _pieces(source: Source, unit: Unit) -> Iterator[tuple[bytes, str | bytes]]:
    """Pieces of a text as bytes and as symbols; a character cut by a piece's end goes to the next piece."""
    if unit == "byte":
        yield from ((piece, piece) for piece in source.pieces())
        return
    held, offset = b"", 0
    for piece in source.pieces():
        text, used = _decode(held + piece, offset, source.name, final=False)
        yield piece, text
        held, offset = (held + piece)[used:], offset + used
    _decode(held, offset, source.name, final=True)


def _decode(data: bytes, offset: int, name: str, *, final: bool) -> tuple[str, int]:
    try:
        return codecs.utf_8_decode(data, "strict", final)
    except UnicodeDecodeError as error:
        at = offset + error.start
        raise DataError(
            f"corpus {name} is not UTF-8 at byte {at} (0x{data[error.start]:02x}: {error.reason}): "
            "repair the text, or train on bytes with --unit byte"
        ) from None


def _encode(symbols: str | bytes, vocab: Vocab, offset: int, name: str) -> npt.NDArray[np.uint32]:
    if isinstance(symbols, str):
        try:
            return vocab.encode(symbols)
        except RequestError as error:
            raise DataError(f"corpus {name}, counted from character {offset}: {error}") from error
    table = np.full(256, -1, np.int64)
    table[vocab.symbols] = np.arange(len(vocab))
    ids = table[np.frombuffer(symbols, np.uint8)]
    if ids.min(initial=0) < 0:
        at = int(np.argmin(ids))
        raise DataError(
            f"corpus {name}: byte 0x{symbols[at]:02x} at {offset + at} is not in the run's vocabulary"
        )
    return ids.astype(np.uint32)

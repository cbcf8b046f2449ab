"""From bytes to symbols: one pass over a text in arrays of code points or bytes, about 1 MiB at a time.

Every symbol counts as it stands: no newline is translated, no byte-order mark or NUL removed. Where documents
are asked for, each is followed by its end symbol and empty ones are left out. Knows nothing of vocabularies.
"""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from charrnn.errors import DataError
from charrnn.training.config import EncodingErrors, TrainConfig
from charrnn.training.sources import Source
from charrnn.vocab import Unit

Codes = npt.NDArray[np.unsignedinteger[Any]]

_REPLACEMENT = "\ufffd"
# What may stand for the end of a document: U+0003 is "end of text"; no tab or newline; then private use.
_CONTROLS = (3, *(code for code in range(32) if code not in (3, 9, 10, 11, 12, 13)), 127)
_PRIVATE = range(0xE000, 0xF900)


@dataclass(frozen=True)
class Rules:
    """How bytes are read. ``separator`` empty: the text is one, without documents."""

    unit: Unit = "char"
    errors: EncodingErrors = "strict"
    separator: str = ""

    @classmethod
    def of(cls, config: TrainConfig) -> Rules:
        """Those of a run."""
        return cls(config.unit, config.encoding_errors, config.separator)

    @property
    def symbols_of_separator(self) -> str:
        """The separator, a character for each of its symbols."""
        is_byte = self.unit == "byte"
        return self.separator.encode().decode("latin-1") if is_byte else self.separator

    def end_symbols(self) -> Iterator[int]:
        """What may stand for the end of a document, best first: a separator of one symbol does it itself."""
        cut = self.symbols_of_separator
        if len(cut) == 1:
            yield ord(cut)
            return
        others = range(256) if self.unit == "byte" else _PRIVATE
        yield from (code for code in dict.fromkeys((*_CONTROLS, *others)) if chr(code) not in cut)


class EndSymbolTakenError(Exception):
    """The symbol that should stand for the end of a document occurs in one."""


class Reading:
    """One pass over a text. It is iterated once; afterwards the counts are those of the whole.

    Args:
        source: where the bytes are.
        rules: how they are read.
        end: the code of the end symbol; needed with a separator.

    Raises:
        DataError: while iterating: a part cannot be read, or is not UTF-8.
        EndSymbolTakenError: while iterating: ``end`` is not the separator and occurs in the text.
    """

    def __init__(self, source: Source, rules: Rules, end: int | None = None) -> None:
        self.num_bytes = self.num_replaced = self.num_empty = 0
        self._source, self._rules, self._end = source, rules, end
        self._digest = hashlib.sha256()
        self._starts: list[tuple[int, str]] = []

    @property
    def sha256(self) -> str:
        """The hash of the bytes read so far."""
        return self._digest.hexdigest()

    def __iter__(self) -> Iterator[Codes]:
        """Arrays ``(N,)`` of symbols: uint8, or uint32 where characters need it. None is empty."""
        texts = self._joined() if self._end is None else self._documents(self._end)
        yield from (codes for codes in texts if len(codes))

    def _joined(self) -> Iterator[Codes]:
        for text in self._decoded(piece for part in self._source.parts for piece in self._pieces(part)):
            yield _codes(text, self._rules.unit)

    def _documents(self, end: int) -> Iterator[Codes]:
        """A file's end also ends a document; an end that follows an end is of an empty document."""
        is_ended = True
        for part in self._source.parts:
            for text in self._cut(self._decoded(self._pieces(part)), chr(end)):
                codes = _codes(text, self._rules.unit)
                if len(codes) == 0:
                    continue
                is_end = codes == end
                is_kept = ~is_end
                is_kept[1:] |= ~is_end[:-1]
                is_kept[0] |= not is_ended
                is_ended = bool(is_end[-1])
                num_kept = int(np.count_nonzero(is_kept))
                self.num_empty += len(codes) - num_kept
                yield codes if num_kept == len(codes) else codes[is_kept]
            if not is_ended:
                is_ended = True
                yield np.array([end], np.uint32)

    def _cut(self, texts: Iterable[str], end: str) -> Iterator[str]:
        """The same text with the end symbol for the separator, also where that lies on a border of pieces."""
        cut = self._rules.symbols_of_separator
        if cut == end:
            yield from texts
            return
        held = ""
        for text in texts:
            if end in text:
                raise EndSymbolTakenError
            closed = (held + text).replace(cut, end)
            held = next(
                (cut[:size] for size in range(len(cut) - 1, 0, -1) if closed.endswith(cut[:size])), ""
            )
            yield closed[: len(closed) - len(held)]
        yield held

    def _pieces(self, part: Any) -> Iterator[bytes]:
        self._starts.append((self.num_bytes, part.name))
        for piece in part.pieces():
            self._digest.update(piece)
            self.num_bytes += len(piece)
            yield piece

    def _decoded(self, pieces: Iterable[bytes]) -> Iterator[str]:
        """Text; a character that a piece's end cuts goes to the next piece."""
        if self._rules.unit == "byte":
            yield from (piece.decode("latin-1") for piece in pieces)
            return
        held = b""
        for piece in pieces:
            data = held + piece if held else piece
            text, used = self._decode(data, self.num_bytes - len(data), is_final=False)
            yield text
            held = data[used:]
        yield self._decode(held, self.num_bytes - len(held), is_final=True)[0]

    def _decode(self, data: bytes, offset: int, *, is_final: bool) -> tuple[str, int]:
        try:
            text, used = codecs.utf_8_decode(data, self._rules.errors, is_final)
        except UnicodeDecodeError as error:
            raise DataError(self._not_utf8(error, offset + error.start)) from None
        if self._rules.errors == "replace" and _REPLACEMENT in text:
            self.num_replaced += text.count(_REPLACEMENT) - data.count(_REPLACEMENT.encode(), 0, used)
        return text, used

    def _not_utf8(self, error: UnicodeDecodeError, offset: int) -> str:
        start, name = max(place for place in self._starts if place[0] <= offset)
        return (
            f"corpus {name} is not UTF-8 at byte {offset - start} "
            f"(0x{error.object[error.start]:02x}: {error.reason}): repair the text, leave the file out, read "
            "U+FFFD there with --encoding-errors replace, or train on bytes with --unit byte"
        )


def _codes(text: str, unit: Unit) -> Codes:
    if unit == "byte" or text.isascii():
        return np.frombuffer(text.encode("latin-1"), np.uint8)
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)

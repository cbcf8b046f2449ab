"""Which part of a text is trained on, and which is kept from it.

Knows token counts and arrays of token ids, not text.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from charrnn.errors import DataError
from charrnn.training.config import SplitName, TrainConfig

Tokens = npt.NDArray[np.unsignedinteger[Any]]

NUM_PIECES = 50
"""Into which an interleaved split cuts a text without documents."""
PERIOD = 20
"""Of so many documents an interleaved split gives one to validation and one to test."""

# The least a validation part needs: one symbol to read, one to predict.
_MIN_EVAL_TOKENS = 2


@dataclass(frozen=True)
class Split:
    """Named parts of a text, each ``[start, end)`` in the file of tokens, which holds one after the other."""

    name: str
    parts: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, name: SplitName, num_tokens: int) -> Split:
        """Cut ``num_tokens`` of a text without documents; what stands where says ``ranges``."""
        sizes = dict.fromkeys(part_names(name), 0)
        for part, start, end in ranges(name, num_tokens):
            sizes[part] += end - start
        parts, start = {}, 0
        for part, size in sizes.items():
            parts[part] = (start, start + size)
            start += size
        return cls(name, parts)

    @property
    def sizes(self) -> dict[str, int]:
        """Tokens in each part."""
        return {part: end - start for part, (start, end) in self.parts.items()}

    def cut(self, tokens: Tokens) -> dict[str, Tokens]:
        """The parts of an array, as views."""
        return {part: tokens[start:end] for part, (start, end) in self.parts.items()}

    def to_json(self) -> dict[str, Any]:
        """``{"name": ..., "parts": {part: [start, end]}}``."""
        return {"name": self.name, "parts": {part: list(bounds) for part, bounds in self.parts.items()}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Split:
        """Undoes ``to_json``."""
        return cls(value["name"], {part: (start, end) for part, (start, end) in value["parts"].items()})


def part_names(name: SplitName) -> tuple[str, ...]:
    """The parts of a split in their order in the file."""
    return ("train", "validation", "test")[: {"none": 1, "nanogpt": 2}.get(name, 3)]


def cuts_of(name: SplitName, num_tokens: int) -> list[int]:
    """Where the parts after the first begin, of a split or of one piece of an interleaved one.

    ``tail`` and ``interleaved``: 90 % train, 5 % validation, 5 % test. ``nanogpt``: 90 % train and 10 %
    validation, rounded as nanoGPT does. ``none``: all is for training.
    """
    if name == "none":
        return []
    if name == "nanogpt":
        return [int(num_tokens * 0.9)]
    return [num_tokens * 90 // 100, num_tokens * 95 // 100]


def ranges(name: SplitName, num_tokens: int) -> Iterator[tuple[str, int, int]]:
    """Part, start and end of each range of a text without documents, in the order of the text.

    ``interleaved`` is the idea of char-rnn's ``CharSplitLMMinibatchLoader``: 50 contiguous pieces of equal
    length, the first 90 % of each for training, the next 5 % for validation, the last 5 % for test. There the
    pieces are the rows of a batch (50 by default), the shares are of whole windows (by default 95 %, 5 % and
    none for test), and what does not fill a window of every row is left out. Here the pieces are always 50,
    whatever the batch, and no symbol is left out; the state is carried over the gaps between ranges.
    """
    num_pieces = NUM_PIECES if name == "interleaved" else 1
    for piece in range(num_pieces):
        first, last = num_tokens * piece // num_pieces, num_tokens * (piece + 1) // num_pieces
        cuts = [first + cut for cut in cuts_of(name, last - first)]
        yield from zip(part_names(name), [first, *cuts], [*cuts, last], strict=True)


def check_size(num_tokens: int, config: TrainConfig, corpus_name: str) -> None:
    """See that every stream of a text without documents gets at least one whole window.

    Raises:
        DataError: says how many symbols these settings need and how many there are.
    """
    if _is_enough(num_tokens, config):
        return
    window = config.batch_size * config.bptt
    candidates = range(num_tokens, 2 * window + 1000)
    need = candidates[bisect.bisect_left(candidates, True, key=lambda number: _is_enough(number, config))]
    symbols = "characters" if config.unit == "char" else "bytes"
    raise DataError(
        f"corpus {corpus_name} has {num_tokens} {symbols}: split {config.split}, batch_size "
        f"{config.batch_size} and bptt {config.bptt} need at least {need}; "
        "give a longer text, or a smaller --batch-size or --bptt"
    )


def check_documents(num_documents: int, config: TrainConfig, corpus_name: str) -> None:
    """See that every part can get at least one document.

    Raises:
        DataError: says how many documents the split needs and how many there are.
    """
    need = PERIOD if config.split == "interleaved" else len(part_names(config.split))
    if num_documents < need:
        raise DataError(
            f"corpus {corpus_name} has {num_documents} documents with separator {config.separator!r}: split "
            f"{config.split} needs at least {need}; give more, another --separator or --split none"
        )


def _is_enough(num_tokens: int, config: TrainConfig) -> bool:
    sizes = Split.of(config.split, num_tokens).sizes
    is_trainable = sizes["train"] > config.batch_size * config.bptt
    return is_trainable and sizes.get("validation", _MIN_EVAL_TOKENS) >= _MIN_EVAL_TOKENS

"""Which part of a text is trained on, and how that part is cut into windows.

Knows token counts and arrays of token ids, not text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from charrnn.errors import DataError
from charrnn.training.config import SplitName, TrainConfig
from charrnn.training.corpus import Tokens

# The least a validation part needs: one symbol to read, one to predict.
_MIN_EVAL_TOKENS = 2


@dataclass(frozen=True)
class Split:
    """Named parts of a text, each ``[start, end)`` in tokens."""

    name: str
    parts: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, name: SplitName, num_tokens: int) -> Split:
        """Cut ``num_tokens``.

        ``tail``: 90 % train, 5 % validation, 5 % test. ``nanogpt``: 90 % train and 10 % validation, rounded
        as nanoGPT does. ``none``: all is for training.
        """
        if name == "none":
            return cls(name, {"train": (0, num_tokens)})
        if name == "nanogpt":
            cut = int(num_tokens * 0.9)
            return cls(name, {"train": (0, cut), "validation": (cut, num_tokens)})
        first, second = num_tokens * 90 // 100, num_tokens * 95 // 100
        return cls(name, {"train": (0, first), "validation": (first, second), "test": (second, num_tokens)})

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


def check_size(num_tokens: int, config: TrainConfig, corpus_name: str) -> None:
    """See that every stream gets at least one whole window.

    Raises:
        DataError: says how many symbols these settings need and how many there are.
    """
    if _is_enough(num_tokens, config):
        return
    need = max(num_tokens, config.batch_size * config.bptt)
    while not _is_enough(need, config):
        need += 1
    symbols = "characters" if config.unit == "char" else "bytes"
    raise DataError(
        f"corpus {corpus_name} has {num_tokens} {symbols}: split {config.split}, batch_size "
        f"{config.batch_size} and bptt {config.bptt} need at least {need}; "
        "give a longer text, or a smaller --batch-size or --bptt"
    )


def _is_enough(num_tokens: int, config: TrainConfig) -> bool:
    sizes = Split.of(config.split, num_tokens).sizes
    is_trainable = sizes["train"] > config.batch_size * config.bptt
    return is_trainable and sizes.get("validation", _MIN_EVAL_TOKENS) >= _MIN_EVAL_TOKENS


class Windows:
    """A text cut into ``batch_size`` contiguous streams, and those into windows of at most ``bptt``.

    Window i of a stream goes on where window i - 1 ended, so a recurrent state can be carried. All symbols
    but the last few (fewer than ``batch_size``) are predicted once an epoch; windows are of nearly equal
    length rather than full with a short rest, which would weigh its few symbols as much as a full one.
    """

    def __init__(self, tokens: Tokens, batch_size: int, bptt: int) -> None:
        self.length = (len(tokens) - 1) // batch_size
        size = batch_size * self.length
        self._inputs = tokens[:size].reshape(batch_size, self.length)  # (B, L)
        self._targets = tokens[1 : size + 1].reshape(batch_size, self.length)  # (B, L)
        self._count = -(-self.length // bptt)

    def __len__(self) -> int:
        """Windows in an epoch."""
        return self._count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of a window, each ``(B, T)`` int64."""
        start, end = index * self.length // self._count, (index + 1) * self.length // self._count
        return _as_tensor(self._inputs[:, start:end]), _as_tensor(self._targets[:, start:end])


def _as_tensor(tokens: Tokens) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(tokens, np.int64))

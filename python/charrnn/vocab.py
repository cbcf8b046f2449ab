"""Text to token ids and back, for characters (Unicode code points) and bytes.

Knows nothing of models or files. The work is done by the Rust core, which the engine shares.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from charrnn import _native

Unit = Literal["char", "byte"]


class Vocab:
    """The symbols a model knows, in order of their token ids.

    Args:
        symbols: code points, or bytes for ``unit="byte"``; distinct, at most 65,536.
        unit: what one symbol stands for.

    Raises:
        RequestError: an empty list, a duplicate, or a number that is no symbol.
    """

    __slots__ = ("_native",)

    def __init__(self, symbols: Iterable[int], unit: Unit = "char") -> None:
        self._native = _native.Vocab(list(symbols), unit)

    @classmethod
    def from_text(cls, text: str, unit: Unit = "char") -> Vocab:
        """The vocabulary of a text: its symbols in ascending order."""
        symbols = set(map(ord, set(text))) if unit == "char" else set(text.encode())
        return cls(sorted(symbols), unit)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Vocab:
        """Undoes ``to_json``."""
        return cls(value["symbols"], value["unit"])

    def to_json(self) -> dict[str, Any]:
        """``{"unit": ..., "symbols": [...]}``, as it stands in runs and bundles."""
        return {"unit": self.unit, "symbols": self.symbols}

    @property
    def unit(self) -> Unit:
        """``"char"`` or ``"byte"``."""
        return self._native.unit

    @property
    def symbols(self) -> list[int]:
        """Code points or bytes, in order of their token ids."""
        return self._native.symbols

    def __len__(self) -> int:
        return len(self._native)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocab) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Vocab({len(self)} symbols, unit={self.unit!r})"

    def encode(self, text: str) -> npt.NDArray[np.uint32]:
        """Token ids of a text, ``(N,)``.

        Raises:
            RequestError: names the first symbol that is not in the vocabulary, and its position.
        """
        return self._native.encode(text)

    def decode(self, token_ids: Sequence[int] | npt.NDArray[np.integer[Any]]) -> str:
        """The text of token ids; bytes that are not UTF-8 become U+FFFD.

        Raises:
            RequestError: a token id that is not below ``len(self)``.
        """
        return self._native.decode(np.asarray(token_ids, dtype=np.uint32))

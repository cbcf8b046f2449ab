"""Arrays by name, claimed one by one with the shape each must have; none may be left over.

Knows nothing of frameworks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from charrnn.errors import DataError
from charrnn.export.weights import Array


class NamedArrays:
    """Arrays that wait for their place. Scalars, such as a count of steps, are no weights."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._left = {name.removesuffix(":0"): array for name, array in arrays.items() if array.ndim > 0}

    @property
    def names(self) -> list[str]:
        """Of those not taken yet; numbers in names count as numbers: ``lstm_2`` stands before ``lstm_10``."""
        return sorted(self._left, key=_natural)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an array that must be there.

        Raises:
            DataError: it is not.
        """
        if name not in self._left:
            shown = ", ".join(self.names[:12]) or "nothing more"
            raise DataError(f"weight {name} is missing; there is {shown}")
        return self._left[name].shape

    def take(self, name: str, *expected: int) -> Array:
        """The array of that name and shape.

        Raises:
            DataError: it is missing or of another shape.
        """
        if self.shape(name) != expected:
            raise DataError(f"weight {name} has shape {self.shape(name)}, expected {expected}")
        return self._left.pop(name)

    def finish(self) -> None:
        """Refuse what is left over."""
        if self._left:
            name = self.names[0]
            raise DataError(
                f"weight {name} of shape {self.shape(name)} has no place in a model of this layout; "
                "leave it out, or choose another --layout"
            )


@dataclass(frozen=True)
class Ends:
    """What stands before and after the recurrent layers: V symbols, E dimensions of an embedding, H units."""

    embedding: Array | None  # (V, E), or None where symbols enter as 1-of-V
    head_weight: Array  # (V, H)
    head_bias: Array  # (V,)

    @property
    def num_inputs(self) -> int:
        """Of the first layer: E, or V."""
        return int((self.head_bias if self.embedding is None else self.embedding).shape[-1])


def take_ends(named: NamedArrays, names: Iterable[str], hidden_size: int, *, is_input_first: bool) -> Ends:
    """The output layer and, if there is one, the embedding, among the arrays that no recurrent layer has.

    Args:
        names: of those arrays: one vector, and one or two matrices.
        is_input_first: the output layer's weight is (H, V), not (V, H).

    Raises:
        DataError: there are others, they are of the wrong shapes, or which is which cannot be told.
    """
    names = list(names)
    vectors = [name for name in names if len(named.shape(name)) == 1]
    matrices = [name for name in names if len(named.shape(name)) == 2]
    embeddings = [name for name in matrices if re.search("emb|encoder", name.lower())]
    if (len(vectors), len(matrices) - len(embeddings)) != (1, 1) or len(embeddings) > 1:
        raise DataError(
            "besides the recurrent layers there must be the output layer's weight and bias, and perhaps one "
            f"matrix with 'embedding' in its name; there is {', '.join(names) or 'nothing'}: "
            "leave out what is more, or choose another --layout"
        )
    (vocab_size,) = named.shape(vectors[0])
    bias = named.take(vectors[0], vocab_size)
    (head,) = (name for name in matrices if name not in embeddings)
    shape = (hidden_size, vocab_size) if is_input_first else (vocab_size, hidden_size)
    weight = named.take(head, *shape)
    embedding = (
        named.take(name, vocab_size, named.shape(name)[1]) if (name := next(iter(embeddings), "")) else None
    )
    return Ends(embedding, weight.T if is_input_first else weight, bias)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]

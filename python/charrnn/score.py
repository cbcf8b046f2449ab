"""How likely a text is for a model: the same object whether a server or this process read it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from charrnn.stream import Top


@dataclass(frozen=True, slots=True)
class Score:
    """How likely a text of ``num_symbols`` is for a model, of which a server tells the ``version``, too.

    ``nats`` is minus the sum of the natural logarithms of its symbols' probabilities in the model's own
    distribution; infinite if the model rules one of them out. If they were asked for, ``ids``, ``logprobs``
    and ``top`` tell of each symbol what they tell in a ``Chunk``.
    """

    model: str
    num_symbols: int
    nats: float
    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    top: tuple[Top, ...] = ()
    version: str = field(default="", compare=False)

    @property
    def bpc(self) -> float:
        """Bits a symbol."""
        return self.nats / math.log(2) / self.num_symbols

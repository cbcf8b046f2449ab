"""What export needs of a trained model, whether it comes from a run folder or is at hand in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from charrnn.training.model import CharRNN


@dataclass(frozen=True)
class TrainedModel:
    """A model in evaluation mode on the CPU, its vocabulary and what is told about it.

    ``validation`` holds token ids, possibly none, by which precisions are judged; ``training`` goes into the
    manifest and the model card.
    """

    model: CharRNN
    unit: str
    symbols: tuple[int, ...]
    validation: npt.NDArray[np.integer[Any]]
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def start_token(self) -> int:
        """The newline if the vocabulary has it, else token 0: what an empty prompt begins with."""
        newline = ord("\n")
        return self.symbols.index(newline) if newline in self.symbols else 0


def read_run(path: str, which: str) -> TrainedModel:
    """x"""
    raise NotImplementedError

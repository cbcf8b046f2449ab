"""What export needs of a trained model, whether it comes from a run folder or is at hand in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from charrnn.training.model import CharRNN
from charrnn.training.run import load_run


@dataclass(frozen=True)
class TrainedModel:
    """A model in evaluation mode on the CPU, its vocabulary and what is told about it.

    ``validation`` holds token ids, possibly none, by which precisions are judged; ``training``, as
    ``Run.summary`` makes it, goes into the manifest and the model card.
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


def read_run(path: str | os.PathLike[str], which: Literal["best", "last"]) -> TrainedModel:
    """One checkpoint of a run folder.

    Raises:
        CheckpointError: there is none, or a file is missing or damaged.
    """
    run = load_run(path, which)
    return TrainedModel(
        model=run.model,
        unit=run.vocab.unit,
        symbols=tuple(run.vocab.symbols),
        validation=run.tokens.get("validation", np.empty(0, np.uint8)),
        training=run.summary(),
    )

"""What export needs of a trained model, whether it comes from a run folder or is at hand in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from charrnn.errors import ConfigError
from charrnn.training.model import CharRNN
from charrnn.training.run import load_run


@dataclass(frozen=True)
class TrainedModel:
    """A model in evaluation mode on the CPU, its vocabulary and what is told about it.

    ``validation`` holds token ids, possibly none, by which precisions are judged; ``training``, as
    ``Run.summary`` makes it, goes into the manifest and the model card. ``end_token`` is what stands after
    every document of a model of documents, which has read it from the zero state only.
    """

    model: CharRNN
    unit: str
    symbols: tuple[int, ...]
    validation: npt.NDArray[np.integer[Any]]
    training: Mapping[str, Any] = field(default_factory=dict)
    end_token: int | None = None

    def __post_init__(self) -> None:
        if self.end_token is not None and not 0 <= self.end_token < len(self.symbols):
            raise ConfigError(f"end_token is {self.end_token}; it must be below {len(self.symbols)} symbols")

    @property
    def start_token(self) -> int:
        """What an empty prompt begins with: the end of the document before it, else newline, else token 0."""
        if self.end_token is not None:
            return self.end_token
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
        end_token=run.end_token,
    )

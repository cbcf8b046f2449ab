"""Where training stands, in numbers: what a checkpoint keeps besides tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from charrnn.errors import CheckpointError


@dataclass
class Progress:
    """Counters of a run. All floats survive JSON exactly.

    ``window`` is the next one of the epoch; ``nats_sum`` and ``nats_count`` are since the last metrics line;
    ``num_skipped`` counts steps in a row that were not finite, ``num_rollbacks`` all returns to a checkpoint,
    ``num_worse`` evaluations in a row without a better one; ``is_stale`` says that these were enough to stop.
    ``losses`` are the last measured of each part.
    """

    step: int = 0
    total_steps: int | None = None
    epoch: int = 0
    window: int = 0
    nats_sum: float = 0.0
    nats_count: int = 0
    num_skipped: int = 0
    num_rollbacks: int = 0
    num_worse: int = 0
    is_stale: bool = False
    best_nats: float | None = None
    best_step: int | None = None
    losses: dict[str, float] = field(default_factory=dict)
    elapsed_s: float = 0.0

    def advance(self, windows_per_epoch: int) -> None:
        """A step has been made: point to the next window."""
        self.step += 1
        self.window += 1
        if self.window >= windows_per_epoch:
            self.epoch, self.window = self.epoch + 1, 0

    def is_over(self, max_minutes: float | None, elapsed_s: float) -> bool:
        """Whether all planned steps are made, or at least one and the time or all patience is over."""
        if self.is_stale:
            return True
        if self.total_steps is not None and self.step >= self.total_steps:
            return True
        return max_minutes is not None and self.step > 0 and elapsed_s >= max_minutes * 60

    def begin_text(self) -> None:
        """Another text takes the place of the one before; losses of the two cannot be compared."""
        self.window, self.best_nats, self.best_step, self.num_worse = 0, None, None, 0

    def count(self, nats: float) -> None:
        """A step has been applied whose window had this loss."""
        self.num_skipped = 0
        self.nats_sum, self.nats_count = self.nats_sum + nats, self.nats_count + 1

    def take_mean_nats(self) -> float | None:
        """The mean training loss since the last call, None without steps; it becomes the last of its part."""
        if not self.nats_count:
            return None
        mean = self.losses["train"] = self.nats_sum / self.nats_count
        self.nats_sum, self.nats_count = 0.0, 0
        return mean

    def is_best(self, nats: float, patience: int | None = None) -> bool:
        """Whether a validation loss is the lowest so far; remembers it, or that patience is at its end."""
        if not nats < (float("inf") if self.best_nats is None else self.best_nats):
            self.num_worse += 1
            self.is_stale = patience is not None and self.num_worse >= patience
            return False
        self.best_nats, self.best_step, self.num_worse = nats, self.step, 0
        return True

    def to_json(self) -> dict[str, Any]:
        """A dictionary that JSON keeps exactly."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Progress:
        """Undoes ``to_json``.

        Raises:
            CheckpointError: it has other fields.
        """
        try:
            return cls(**value)
        except TypeError as error:
            raise CheckpointError(f"the checkpoint's progress is of another version: {error}") from error

"""Watching training runs, and comparing what they leave."""

from __future__ import annotations

import signal
from pathlib import Path

from charrnn.training.callbacks import Callback, Evaluated, Stepped
from charrnn.training.checkpoint import MODEL, list_checkpoints


class Diary(Callback):
    """Remembers what it is told; sends a signal after a step if asked to."""

    def __init__(self, signal_at: int | None = None) -> None:
        self.notes: list[str] = []
        self.losses: list[tuple[int, str, float, bool]] = []
        self.steps: list[int] = []
        self.nats: list[float] = []
        self._signal_at = signal_at

    def note(self, text: str) -> None:
        self.notes.append(text)

    def stepped(self, stepped: Stepped) -> None:
        self.steps.append(stepped.step)
        self.nats.append(stepped.nats)
        if stepped.step == self._signal_at:
            signal.raise_signal(signal.SIGTERM)

    def evaluated(self, evaluated: Evaluated) -> None:
        told = evaluated
        self.losses.append((told.step, told.split, told.loss.nats, told.is_best))


def last_weights(run: Path) -> bytes:
    return (run / "checkpoints" / list_checkpoints(run / "checkpoints")[0] / MODEL).read_bytes()

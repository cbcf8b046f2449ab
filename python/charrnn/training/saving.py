"""Keeps a run's checkpoints: writes them when they are due, names them in run.json, lets go of old ones.

A disk that does not take one costs a warning and another try when the next is due, unless the run is strict
or over. Knows nothing of how steps are made.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from charrnn.errors import CheckpointError, DivergedError
from charrnn.training.checkpoint import (
    Checkpoint,
    folder_name,
    list_checkpoints,
    prune,
    save_checkpoint,
    step_of,
)
from charrnn.training.files import replacing, sha256_json
from charrnn.training.metrics import MetricsFile
from charrnn.training.parts import Parts


class Saver:
    """Writes what ``parts`` are at a moment."""

    def __init__(self, parts: Parts, metrics: MetricsFile) -> None:
        self._parts, self._metrics = parts, metrics
        self._folder, self._progress = parts.folder, parts.progress

    def save(self, *, is_last: bool = False) -> None:
        """Write a checkpoint of this moment, on rank 0; all ranks must come here.

        Raises:
            DivergedError: a weight is not finite; nothing has been written.
            CheckpointError: the disk does not take it, and the run is over or strict.
        """
        learner = self._parts.learner
        if not learner.is_finite():
            self._parts.world.fail(DivergedError(diverged(self._parts, "weights are not finite")))
        checkpoint = Checkpoint(learner.weights(), learner.tensors(), self._state())
        self._parts.world.first(
            lambda: self._try(lambda: self._write(checkpoint), "the checkpoint", is_last=is_last)
        )

    def save_once(self) -> None:
        """Write the last checkpoint, unless it is there."""
        name = folder_name(self._progress.step)
        if not self._parts.world.first(lambda: name in list_checkpoints(self._folder.checkpoints)):
            self.save(is_last=True)

    @property
    def sample_path(self) -> Path:
        """Where the sample of this moment is kept."""
        return self._folder.samples / f"{folder_name(self._progress.step)}.txt"

    def keep_sample(self, text: str, *, is_last: bool) -> None:
        """Write a sample of this moment into the run folder.

        Raises:
            CheckpointError: the disk does not take it, and the run is over or strict.
        """
        self._try(lambda: self._write_sample(text), "the sample", is_last=is_last)

    def _try(self, write: Callable[[], None], what: str, *, is_last: bool) -> None:
        try:
            write()
        except (CheckpointError, OSError) as error:
            told = error if isinstance(error, CheckpointError) else _told(error, what, self._folder.path)
            if is_last or self._parts.config.strict_save:
                raise told from error
            self._parts.callbacks.note(f"warning: {told}; training goes on and tries again when it is due")

    def _write(self, checkpoint: Checkpoint) -> None:
        step, folder = self._progress.step, self._folder.checkpoints
        self._metrics.sync()
        name = save_checkpoint(folder, step, checkpoint)
        publish(self._parts, name)
        self._parts.callbacks.saved(step, folder / name)

    def _write_sample(self, text: str) -> None:
        self._folder.samples.mkdir(exist_ok=True)
        with replacing(self.sample_path) as file:
            file.write(text.encode())

    def _state(self) -> dict[str, Any]:
        config, progress, material = self._parts.config, self._progress, self._parts.material
        return {
            "progress": progress.to_json(),
            "schedule": {"name": config.schedule, "lr": config.lr, "total_steps": progress.total_steps},
            "split": material.split.name,
            "corpus_sha256": material.corpus_sha256,
            "vocab_sha256": sha256_json(material.vocab.to_json()),
            "config": config.to_json(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "device": self._parts.learner.device.type,
            "world_size": self._parts.world.size,
        }


def publish(parts: Parts, last: str) -> None:
    """Name the last checkpoint, the one before it and the best in run.json; delete the others."""
    folder, progress = parts.folder, parts.progress
    names = list_checkpoints(folder.checkpoints)
    best = folder_name(progress.best_step) if progress.best_step is not None else last
    known = {"last": last, "best": best if best in names else last}
    if earlier := [name for name in names if step_of(name) < step_of(last)]:
        known["previous"] = earlier[0]
    folder.write_info({**parts.material.info, "checkpoints": known})
    prune(folder.checkpoints, set(known.values()))


def diverged(parts: Parts, what: str) -> str:
    """What to say when training cannot go on for its numbers."""
    kept: list[str] = []
    with suppress(OSError):
        kept = list_checkpoints(parts.folder.checkpoints)
    last = f"the last good checkpoint is {kept[0]}" if kept else "there is no checkpoint from before"
    return f"training diverged at step {parts.progress.step}: {what}; {last}; start anew with a lower --lr"


def _told(error: OSError, what: str, path: object) -> CheckpointError:
    reason = error.strerror or error
    return CheckpointError(f"cannot save {what} in {error.filename or path}: {reason}; make room there")

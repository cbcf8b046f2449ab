"""What goes wrong while a model learns: numbers that are not finite, and memory that does not suffice.

A step that is not finite is never applied. Knows nothing of disks or processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

import torch
from safetensors.torch import save
from torch import Tensor

from charrnn.errors import CharrnnError, DivergedError
from charrnn.training.checkpoint import list_checkpoints, load_checkpoint
from charrnn.training.config import TrainConfig
from charrnn.training.files import replacing
from charrnn.training.learner import Learnt
from charrnn.training.metrics import MetricsFile
from charrnn.training.parts import Parts
from charrnn.training.run_folder import RunFolder
from charrnn.training.saving import diverged


class Faults:
    """Counts steps in a row that were not finite, and skips, rolls back or stops as ``on_nan`` says."""

    def __init__(self, parts: Parts, metrics: MetricsFile) -> None:
        self._parts, self._metrics = parts, metrics

    def met(self, learnt: Learnt, inputs: Tensor, targets: Tensor) -> None:
        """A step was not applied: inputs and targets ``(B, T)`` are what it was to learn from.

        Raises:
            DivergedError: it was one too many. The batch is in the run folder then.
            CheckpointError: the checkpoint to go back to is damaged.
        """
        progress, config = self._parts.progress, self._parts.config
        progress.num_skipped += 1
        told = {"train_nats": learnt.nats, "gradient_norm": learnt.gradient_norm}
        self._metrics.write("skipped", progress.step, **told)
        what = f"loss {learnt.nats:g} and gradient norm {learnt.gradient_norm:g} are not both finite"
        if config.on_nan == "stop":
            self._end(what, inputs, targets)
        if progress.num_skipped >= config.max_skipped:
            self._end(f"{what}, {progress.num_skipped} steps in a row", inputs, targets)
        done = self._roll_back() if config.on_nan == "rollback" else ""
        self._parts.callbacks.note(f"step {progress.step}: {what}: step not applied{done}")

    def _roll_back(self) -> str:
        """Weights, optimiser, state and random numbers as in the last checkpoint; the text goes on."""
        folder, world = self._parts.folder.checkpoints, self._parts.world
        names = world.first(lambda: list_checkpoints(folder))
        if not names:
            return ", and there is no checkpoint yet to go back to"
        checkpoint = load_checkpoint(folder / names[0])
        self._parts.learner.restore(checkpoint.weights, checkpoint.tensors)
        self._parts.progress.num_rollbacks += 1
        self._metrics.write("rollback", self._parts.progress.step, checkpoint=names[0])
        return f", and back to the weights of {names[0]}"

    def _end(self, what: str, inputs: Tensor, targets: Tensor) -> NoReturn:
        path = self._parts.folder.bad_batch
        batch = {"inputs": inputs, "targets": targets, "step": torch.tensor(self._parts.progress.step)}
        kept = ""
        if self._parts.world.rank == 0:
            with suppress(OSError), replacing(path) as file:
                file.write(save({name: tensor.contiguous() for name, tensor in batch.items()}))
                kept = f"; its batch is in {path}"
        self._parts.world.fail(DivergedError(diverged(self._parts, what + kept)))


# How torch, its allocators, oneDNN and the C++ library say it, in errors of no class of their own.
_OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "bad alloc", "could not create a memory")


@contextmanager
def enough_memory(config: TrainConfig, folder: RunFolder) -> Iterator[None]:
    """Say of a lack of memory what takes it and what to lower.

    Raises:
        CharrnnError: the block needed more memory than there is.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(part in str(error) for part in _OUT_OF_MEMORY):
            raise
        kept = list_checkpoints(folder.checkpoints)
        last = f"; the last good checkpoint is {kept[0]}" if kept else ""
        raise CharrnnError(
            f"out of memory: batch_size {config.batch_size} x bptt {config.bptt} x hidden_size "
            f"{config.hidden_size} x num_layers {config.num_layers} is too much{last}: "
            "lower one of them, --batch-size first"
        ) from error

"""Several processes in one run: rank 0 opens the run folder, the others follow it to where it stands.

They read what it has read or written, so all must see the folder. Knows nothing of how a run is begun or gone
on with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from charrnn.training import setup
from charrnn.training.callbacks import Callback
from charrnn.training.checkpoint import load_checkpoint
from charrnn.training.config import TrainConfig
from charrnn.training.distributed import World
from charrnn.training.learner import Learner
from charrnn.training.loop import TrainingLoop
from charrnn.training.parts import Parts
from charrnn.training.progress import Progress
from charrnn.training.run_folder import RunFolder


def open_together(
    world: World,
    config: TrainConfig,
    folder: RunFolder,
    clock: Callable[[], float],
    open_run: Callable[[], TrainingLoop],
) -> TrainingLoop:
    """``open_run`` on rank 0; then on every rank a loop that stands where that one does."""
    opened: list[TrainingLoop] = []

    def lead() -> dict[str, Any]:
        opened.append(open_run())
        return opened[0].standing

    standing = world.first(lead)
    loop = (
        opened[0]
        if opened
        else TrainingLoop(_follow(world, config, folder, clock, standing), standing["started_at"])
    )
    loop.learner.agree()
    return loop


def _follow(
    world: World,
    config: TrainConfig,
    folder: RunFolder,
    clock: Callable[[], float],
    standing: dict[str, Any],
) -> Parts:
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    material = setup.read(folder)
    learner = Learner(config, len(material.vocab), world)
    if standing["checkpoint"] is not None:
        checkpoint = load_checkpoint(folder.checkpoints / standing["checkpoint"])
        learner.restore(checkpoint.weights, checkpoint.tensors)
    progress = Progress.from_json(standing["progress"])
    return Parts(config, folder, material, learner, progress, Callback(), clock, world)

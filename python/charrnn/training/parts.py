"""What the pieces of a training run work with, in one hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from charrnn.training.callbacks import Callback
from charrnn.training.config import TrainConfig
from charrnn.training.distributed import World
from charrnn.training.learner import Learner
from charrnn.training.progress import Progress
from charrnn.training.run_folder import RunFolder
from charrnn.training.setup import Material


@dataclass
class Parts:
    """What a loop works with. ``callbacks`` are told on rank 0 only."""

    config: TrainConfig
    folder: RunFolder
    material: Material
    learner: Learner
    progress: Progress
    callbacks: Callback
    clock: Callable[[], float] = time.monotonic
    world: World = field(default_factory=World)

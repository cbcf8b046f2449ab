"""Training character-level recurrent networks in PyTorch.

    from charrnn.training import TrainConfig, Trainer, load_run

    result = Trainer(TrainConfig(max_epochs=5)).fit("book.txt", out="runs/book")
    model = load_run("runs/book", which="best").model

Knows nothing of ONNX or serving. Names are loaded on first use, so that settings can be read without torch.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from charrnn.training.callbacks import Callback
    from charrnn.training.config import TrainConfig
    from charrnn.training.evaluation import Loss, evaluate
    from charrnn.training.model import CharRNN
    from charrnn.training.run import Run, load_run
    from charrnn.training.sampling import sample_text
    from charrnn.training.tensorboard import TensorBoard
    from charrnn.training.trainer import Trainer, TrainResult

__all__ = [
    "Callback",
    "CharRNN",
    "Loss",
    "Run",
    "TensorBoard",
    "TrainConfig",
    "TrainResult",
    "Trainer",
    "evaluate",
    "load_run",
    "sample_text",
]

_HOME = {
    "Callback": "callbacks",
    "CharRNN": "model",
    "Loss": "evaluation",
    "Run": "run",
    "TensorBoard": "tensorboard",
    "TrainConfig": "config",
    "TrainResult": "trainer",
    "Trainer": "trainer",
    "evaluate": "evaluation",
    "load_run": "run",
    "sample_text": "sampling",
}

# Waiting OpenMP threads spin by default. Where another process shares the cores, a step of many short
# parallel regions then waits for threads that are not running (seen: 2.6 s instead of 0.1 s). Not to spin
# at all costs threefold on idle cores; this many turns cost nothing. Read when torch is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)

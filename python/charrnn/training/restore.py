"""Which checkpoint a run goes on from, and whether it is one of this run.

Knows checkpoints and settings, not how training goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from charrnn.errors import CheckpointError
from charrnn.training.checkpoint import Checkpoint, list_checkpoints, load_checkpoint
from charrnn.training.config import TrainConfig
from charrnn.training.files import sha256_json
from charrnn.training.run_folder import RunFolder
from charrnn.vocab import Vocab


def newest_intact(folder: RunFolder, note: Callable[[str], None]) -> tuple[str, Checkpoint | None]:
    """The newest checkpoint whose hashes are right, and its name; nothing if there is no checkpoint yet.

    Raises:
        CheckpointError: there are some, and all are damaged.
    """
    names = list_checkpoints(folder.checkpoints)
    damages: list[CheckpointError] = []
    for name in names:
        try:
            return name, load_checkpoint(folder.checkpoints / name)
        except CheckpointError as error:
            damages.append(error)
            if name != names[-1]:
                note(f"{error}; falling back to the checkpoint before it")
    if damages:
        raise CheckpointError(f"{damages[0]}; no checkpoint is left: start a new run with another --out")
    return "", None


def check_state(config: TrainConfig, state: Mapping[str, Any], vocab: Vocab) -> None:
    """See that a checkpoint is of these settings and this vocabulary.

    Raises:
        ConfigError, CheckpointError: it is not.
    """
    config.check_resumes(TrainConfig.from_json(state["config"]))
    found = sha256_json(vocab.to_json())
    if found != state["vocab_sha256"]:
        raise CheckpointError(
            f"vocab.json is not the checkpoint's: expected sha256 {state['vocab_sha256']}, found {found}"
        )


def differences(state: Mapping[str, Any], device: str, world_size: int = 1) -> Iterator[str]:
    """A warning for everything that is not as it was and rounds differently."""
    now = {"torch": torch.__version__, "threads": torch.get_num_threads(), "device": device}
    for name, value in {**now, "world_size": world_size}.items():
        before = state.get(name, 1)  # a run of one process may not say so
        if before != value:
            yield f"warning: {name} was {before} and is {value}: the run goes on, but not bit-exact"

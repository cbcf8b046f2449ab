"""A resumable moment of training as a folder: weights, everything else in tensors, and a readable state.json.

    step-0000500/model.safetensors       weights by name
    step-0000500/optimizer.safetensors   moments, carried recurrent state, random number generators
    step-0000500/state.json              where training stands, on what, sha256 of both files and of itself

No pickle is written or read. Knows nothing of how training goes on from there.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from charrnn.errors import CheckpointError
from charrnn.training.files import new_folder, sealed, sha256_file, unsealed, write_json

MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
FORMAT, VERSION = "charrnn-checkpoint", 1
_NAME = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint folder holds. ``tensors`` are those besides the weights."""

    weights: Mapping[str, Tensor]
    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        tensors = [*self.weights.values(), *self.tensors.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def folder_name(step: int) -> str:
    """Name of the checkpoint folder of a step."""
    return f"step-{step:07d}"


def step_of(name: str) -> int:
    """The step of a checkpoint folder's name."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise CheckpointError(f"{name!r} is no checkpoint: its name must be step- and a number")
    return int(match[1])


def list_checkpoints(folder: Path) -> list[str]:
    """Names of the checkpoints in a folder, newest first."""
    if not folder.is_dir():
        return []
    return sorted(
        (path.name for path in folder.iterdir() if _NAME.fullmatch(path.name)), key=step_of, reverse=True
    )


def save_checkpoint(folder: Path, step: int, checkpoint: Checkpoint) -> str:
    """Write a checkpoint as ``folder/step-N``, whole or not at all; returns its name.

    Raises:
        CheckpointError: the disk does not take it. What was there before is untouched.
    """
    name = folder_name(step)
    try:
        with new_folder(folder / name) as aside:
            save_file(dict(checkpoint.weights), aside / MODEL)
            save_file(dict(checkpoint.tensors), aside / OPTIMIZER)
            files = {file: sha256_file(aside / file) for file in (MODEL, OPTIMIZER)}
            state = {"format": FORMAT, "version": VERSION, **checkpoint.state, "files": files}
            write_json(aside / STATE, sealed(state))
    except (OSError, SafetensorError) as error:
        remedy = _remedy(has_earlier=bool(list_checkpoints(folder)))
        raise CheckpointError(f"{_cannot_save(folder / name, checkpoint, error)}; {remedy}") from error
    return name


def _cannot_save(path: Path, checkpoint: Checkpoint, error: Exception) -> str:
    reason = (isinstance(error, OSError) and error.strerror) or error
    return f"cannot save checkpoint {path} of {checkpoint.num_bytes} bytes: {reason}"


def _remedy(*, has_earlier: bool) -> str:
    if has_earlier:
        return "earlier checkpoints are untouched: make room and continue with --resume"
    return "there is no earlier checkpoint: make room and begin anew with --resume"


def load_checkpoint(path: Path, *, weights_only: bool = False) -> Checkpoint:
    """Read a checkpoint after checking every hash; with ``weights_only`` the optimiser's file is left alone.

    Raises:
        CheckpointError: a file is missing or damaged, with the hash expected and the one found.
    """
    state = _load_state(path / STATE)
    files = state["files"]
    weights = _load_tensors(path / MODEL, files[MODEL])
    tensors = {} if weights_only else _load_tensors(path / OPTIMIZER, files[OPTIMIZER])
    return Checkpoint(weights, tensors, state)


def _load_state(path: Path) -> dict[str, Any]:
    try:
        state = unsealed(json.loads(path.read_bytes()))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    except KeyError as error:
        raise CheckpointError(f"{path} is damaged: it does not name its own sha256") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if (state.get("format"), state.get("version")) != (FORMAT, VERSION):
        raise CheckpointError(
            f"{path} has format {state.get('format')!r} version {state.get('version')!r}: "
            f"this charrnn reads {FORMAT!r} version {VERSION}"
        )
    return state


def _load_tensors(path: Path, expected: str) -> dict[str, Tensor]:
    try:
        found = sha256_file(path)
        if found != expected:
            raise CheckpointError(f"{path} is damaged: expected sha256 {expected}, found {found}")
        tensors: dict[str, Tensor] = load_file(path)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file: {error}") from error
    return tensors


def prune(folder: Path, keep: set[str]) -> None:
    """Delete the checkpoints whose names are not in ``keep``."""
    for name in list_checkpoints(folder):
        if name not in keep:
            shutil.rmtree(folder / name, ignore_errors=True)

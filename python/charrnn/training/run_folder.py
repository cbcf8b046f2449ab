"""A run on disk: who may write it, and where everything in it stands.

    RUN/config.json  vocab.json  run.json  tokens.bin  metrics.jsonl  samples/  checkpoints/step-N/
    and stdin.txt, if the text came from there

Knows names and locks, not what training is.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from charrnn.errors import CheckpointError, ConfigError
from charrnn.training.config import TrainConfig
from charrnn.training.files import remove_leftovers, sealed, unsealed, write_json
from charrnn.vocab import Vocab

RUN_FORMAT, RUN_VERSION = "charrnn-run", 1
_LOCK = ".lock"


class RunFolder:
    """Paths of a run and its JSON files."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.vocab = self.path / "vocab.json"
        self.info = self.path / "run.json"
        self.tokens = self.path / "tokens.bin"
        self.stdin = self.path / "stdin.txt"
        self.metrics = self.path / "metrics.jsonl"
        self.samples = self.path / "samples"
        self.checkpoints = self.path / "checkpoints"
        self.bad_batch = self.path / "bad_batch.safetensors"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder if need be, and keep other trainers out until the block ends.

        The lock is the operating system's: it is gone when its holder is, however that ended.

        Raises:
            ConfigError: another process holds it, or the path is no folder.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = open(self.path / _LOCK, "a+", encoding="ascii")  # noqa: SIM115
        except OSError as error:
            raise ConfigError(f"cannot use {self.path} as a run folder: {error.strerror}") from error
        with file:
            _lock(file.fileno(), self.path)
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def is_empty(self) -> bool:
        """Whether nothing has been begun in it."""
        return all(path.name == _LOCK for path in self.path.iterdir())

    def discard_if_empty(self) -> None:
        """Take back a folder in which nothing was begun."""
        if self.is_empty():
            (self.path / _LOCK).unlink(missing_ok=True)
            self.path.rmdir()

    def discard_begun(self) -> None:
        """Take back a run that was being begun, and the folder if nothing else is in it."""
        remove_leftovers(self.path)
        for path in (self.info, self.config, self.vocab, self.tokens, self.stdin):
            path.unlink(missing_ok=True)
        self.discard_if_empty()

    def remove_leftovers(self) -> None:
        """Delete what a crash left half written. Only for the holder of the lock."""
        for folder in (self.path, self.checkpoints, self.samples):
            remove_leftovers(folder)

    def read_config(self) -> TrainConfig:
        """The settings the run was begun with.

        Raises:
            CheckpointError: there is no run, or its settings cannot be read.
        """
        try:
            return TrainConfig.from_json(_read_sealed(self.config))
        except (ConfigError, TypeError) as error:
            raise CheckpointError(f"{self.config} is damaged: {error}") from error

    def write_config(self, config: TrainConfig) -> None:
        """Replace config.json in one piece."""
        write_json(self.config, sealed(config.to_json()))

    def read_vocab(self) -> Vocab:
        """The run's vocabulary."""
        value = _read_json(self.vocab)
        try:
            return Vocab.from_json(value)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise CheckpointError(f"{self.vocab} is damaged: {error!r}") from error

    def read_info(self) -> dict[str, Any]:
        """run.json: corpus, tokens, split and the names of the checkpoints.

        Raises:
            CheckpointError: it is missing, damaged or of another version.
        """
        info = _read_sealed(self.info)
        if (info.get("format"), info.get("version")) != (RUN_FORMAT, RUN_VERSION):
            raise CheckpointError(
                f"{self.info} has format {info.get('format')!r} version {info.get('version')!r}: "
                f"this charrnn reads {RUN_FORMAT!r} version {RUN_VERSION}"
            )
        return info

    def write_info(self, info: Mapping[str, Any]) -> None:
        """Replace run.json in one piece."""
        write_json(self.info, sealed({"format": RUN_FORMAT, "version": RUN_VERSION, **info}))


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
        raise ConfigError(
            f"run folder {path} is locked by pid {holder or 'unknown'}: "
            "wait for that process to end, or choose another --out"
        ) from error


def _read_sealed(path: Path) -> dict[str, Any]:
    value = _read_json(path)
    if "sha256" not in value:  # runs of the first days
        return value
    try:
        return unsealed(value)
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}; it is not for editing") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        if (path.parent / "manifest.json").exists():
            raise CheckpointError(
                f"{path.parent} is a bundle, which holds neither settings nor text: "
                "give the run it was exported from"
            ) from error
        raise CheckpointError(f"cannot read {path}: {error.strerror}; is it a run folder?") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is damaged: it holds no object")
    return value

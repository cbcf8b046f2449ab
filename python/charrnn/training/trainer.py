"""Opening, running and closing a training run: the short Python interface to it all."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from charrnn.errors import CharrnnError, CheckpointError, ConfigError
from charrnn.training import setup
from charrnn.training.checkpoint import Checkpoint, list_checkpoints, load_checkpoint
from charrnn.training.config import TrainConfig
from charrnn.training.corpus import Source
from charrnn.training.files import sha256_json, write_json
from charrnn.training.learner import Learner
from charrnn.training.loop import Parts, TrainingLoop
from charrnn.training.progress import Progress
from charrnn.training.reporter import Reporter
from charrnn.training.run_folder import RunFolder
from charrnn.training.setup import Material
from charrnn.training.signals import StopSignal


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    ``losses`` are the last of each part, in nats; ``stopped_by`` is the signal that ended it early, after
    which there is no sample.
    """

    path: Path
    step: int
    losses: Mapping[str, float]
    best_step: int | None
    best_nats: float | None
    sample: str
    stopped_by: signal.Signals | None


class Trainer:
    """Trains a model as a configuration says.

    Args:
        config: the settings; all have defaults.
        reporter: what is shown meanwhile; nothing by default.
        clock: seconds that only go forward, for ``max_minutes``.

    A process trains one model at a time: torch's random numbers and number of threads belong to the process.
    """

    def __init__(
        self,
        config: TrainConfig | None = None,
        *,
        reporter: Reporter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config or TrainConfig()
        self._reporter = reporter or Reporter()
        self._clock = clock

    def fit(
        self,
        corpus: str | os.PathLike[str] | None = None,
        *,
        out: str | os.PathLike[str],
        resume: bool = False,
        allow_data_change: bool = False,
    ) -> TrainResult:
        """Train on a text file, None being the built-in corpus, and leave the run in the folder ``out``.

        With ``resume`` the run in ``out`` goes on from its newest intact checkpoint to the same end, bit for
        bit, that it would have had; ``corpus`` None is then the text it was begun with. Ctrl-C and SIGTERM
        end the step at hand and save.

        Raises:
            ConfigError: ``out`` holds something already, another process trains in it, the settings are not
                those of the run, or the text has changed.
            DataError: the text cannot be read, or is too small.
            CheckpointError: the run is damaged, or cannot be saved.
            DivergedError: losses or gradients were not finite several times in a row.
        """
        started_at = self._clock()
        folder = RunFolder(out)
        source = None if corpus is None else Source(Path(corpus))
        with folder.locked(), StopSignal() as stop:
            folder.remove_leftovers()
            loop = self._open(folder, source, started_at, resume=resume, may_change=allow_data_change)
            stopped_by = loop.run(stop)
            sample = "" if stopped_by else loop.sample()
        progress = loop.progress
        return TrainResult(
            path=folder.path,
            step=progress.step,
            losses=progress.losses,
            best_step=progress.best_step,
            best_nats=progress.best_nats,
            sample=sample,
            stopped_by=stopped_by,
        )

    def _open(
        self, folder: RunFolder, source: Source | None, started_at: float, *, resume: bool, may_change: bool
    ) -> TrainingLoop:
        if self.config.threads is not None:
            torch.set_num_threads(self.config.threads)
        if not folder.info.exists():
            return self._begin(folder, source, started_at, resume=resume)
        if not resume:
            raise ConfigError(_exists(folder))
        return self._resume(folder, source, started_at, may_change=may_change)

    def _begin(
        self, folder: RunFolder, source: Source | None, started_at: float, *, resume: bool
    ) -> TrainingLoop:
        try:
            if resume and source is None:
                raise ConfigError(f"{folder.path} holds no run to resume: give the corpus to begin one")
            if not (folder.is_empty() or _is_barely_begun(folder, resume)):
                raise ConfigError(_exists(folder))
            material = setup.begin(folder, self.config, source or Source(None))
        except CharrnnError:
            folder.discard_if_empty()
            raise
        return self._loop(folder, material, Learner(self.config, len(material.vocab)), Progress(), started_at)

    def _resume(
        self, folder: RunFolder, source: Source | None, started_at: float, *, may_change: bool
    ) -> TrainingLoop:
        stored = folder.read_config()
        self.config.check_resumes(stored)
        name, checkpoint = self._newest_intact(folder)
        state: Mapping[str, Any] = checkpoint.state if checkpoint else {}
        material = setup.reopen(folder, source, state.get("corpus_sha256"), may_change=may_change)
        if self.config != stored:
            write_json(folder.config, self.config.to_json())
        learner = Learner(self.config, len(material.vocab))
        if checkpoint is None:
            self._reporter.note("the run has no checkpoint yet: it begins anew")
            return self._loop(folder, material, learner, Progress(), started_at)
        self._check(state, material, learner)
        learner.restore(checkpoint.weights, checkpoint.tensors)
        progress = Progress.from_json(state["progress"])
        if state["corpus_sha256"] != material.corpus_sha256:
            self._reporter.note("the corpus has changed: going on at its beginning")
            progress.window = 0
        self._reporter.note(f"resuming at step {progress.step}")
        loop = self._loop(folder, material, learner, progress, started_at)
        loop.publish(name)
        return loop

    def _newest_intact(self, folder: RunFolder) -> tuple[str, Checkpoint | None]:
        names = list_checkpoints(folder.checkpoints)
        damages: list[CheckpointError] = []
        for name in names:
            try:
                return name, load_checkpoint(folder.checkpoints / name)
            except CheckpointError as error:
                damages.append(error)
                self._reporter.note(f"{error}; falling back to the checkpoint before it")
        if damages:
            raise damages[0]
        return "", None

    def _check(self, state: Mapping[str, Any], material: Material, learner: Learner) -> None:
        self.config.check_resumes(TrainConfig.from_json(state["config"]))
        found = sha256_json(material.vocab.to_json())
        if found != state["vocab_sha256"]:
            raise CheckpointError(
                f"vocab.json is not the checkpoint's: expected sha256 {state['vocab_sha256']}, found {found}"
            )
        now = {"torch": torch.__version__, "threads": torch.get_num_threads(), "device": learner.device.type}
        for name, value in now.items():
            if state[name] != value:
                self._reporter.note(
                    f"warning: {name} was {state[name]} and is {value}: the run goes on, but not bit-exact"
                )

    def _loop(
        self, folder: RunFolder, material: Material, learner: Learner, progress: Progress, started_at: float
    ) -> TrainingLoop:
        parts = Parts(self.config, folder, material, learner, progress, self._reporter, self._clock)
        loop = TrainingLoop(parts, started_at)
        for line in _facts(parts):
            self._reporter.note(line)
        return loop


def _exists(folder: RunFolder) -> str:
    return (
        f"{folder.path} exists and is not empty: give --resume to go on with the run in it, or another --out"
    )


def _is_barely_begun(folder: RunFolder, resume: bool) -> bool:
    """Whether a run was killed between its first two files."""
    names = {path.name for path in folder.path.iterdir() if not path.name.startswith(".")}
    return resume and names <= {folder.config.name}


def _facts(parts: Parts) -> list[str]:
    """What is trained on what, for how long."""
    config, model, split = parts.config, parts.learner.model, parts.material.split
    sizes = ", ".join(f"{part} {size:,}" for part, size in split.sizes.items())
    total = f"{parts.progress.total_steps:,}" if parts.progress.total_steps else "as many as fit"
    return [
        f"{config.cell} {config.num_layers}x{config.hidden_size}, {model.num_parameters:,} parameters, "
        f"{len(parts.material.vocab)} symbols, {parts.learner.device}, {torch.get_num_threads()} threads",
        f"{parts.material.info['corpus']['name']}, split {split.name}: {sizes} {config.unit}s",
        f"steps: {total}, each {config.batch_size} x {config.bptt} {config.unit}s",
    ]

"""A run folder begun, or a run in it found again: text, learner and progress to train with.

Knows settings, texts and checkpoints, not how training goes on or who listens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from charrnn.errors import ConfigError
from charrnn.training import setup, warm_start
from charrnn.training.checkpoint import Checkpoint
from charrnn.training.config import TrainConfig
from charrnn.training.distributed import World
from charrnn.training.forecast import free_memory, shortage
from charrnn.training.learner import Learner, choose_device
from charrnn.training.progress import Progress
from charrnn.training.restore import check_state, differences, newest_intact
from charrnn.training.run_folder import RunFolder
from charrnn.training.setup import Material, Standing
from charrnn.training.sources import STDIN, Source, Words, as_words, find_source
from charrnn.vocab import Vocab


@dataclass(frozen=True)
class Opened:
    """What a run goes on with; ``checkpoint`` names the one it goes on from, empty before the first."""

    material: Material
    learner: Learner
    progress: Progress
    checkpoint: str = ""


class Opening:
    """Opens one folder, whose lock is held.

    Args:
        note: where lines for people go.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: RunFolder,
        world: World,
        note: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._config, self._folder, self._world = config, folder, world
        self._note, self._clock = note, clock

    def open(self, corpus: Words | None, started_at: float, *, resume: bool, may_change: bool) -> Opened:
        """Begin the run, or find where it goes on.

        Raises:
            ConfigError: the folder is taken, the settings are not those of the run, or the text has changed.
            DataError: the text cannot be read, or is too small.
            CheckpointError: the run is damaged.
        """
        folder = self._folder
        if self._config.threads is not None:
            torch.set_num_threads(self._config.threads)
        if not folder.info.exists():
            return self._begin(corpus, resume=resume)
        if not resume:
            raise ConfigError(_exists(folder))
        source = None if corpus is None else self._source(corpus)
        return self._resume(source, started_at, may_change=may_change)

    def _source(self, corpus: Words | None) -> Source:
        folder = self._folder
        if STDIN in as_words(corpus) and folder.stdin.exists():
            self._note(f"stdin is not read: {folder.stdin} has what came from there")
        return find_source(corpus, spool=folder.stdin, leave_out=folder.path)

    def _begin(self, corpus: Words | None, *, resume: bool) -> Opened:
        folder = self._folder
        try:
            if resume and corpus is None:
                raise ConfigError(f"{folder.path} holds no run to resume: give the corpus to begin one")
            if not (folder.is_empty() or _is_barely_begun(folder, resume)):
                raise ConfigError(_exists(folder))
        except ConfigError:
            folder.discard_if_empty()
            raise
        try:
            text = setup.look_at(self._source(corpus), self._config)
            learner = self._learner(text.vocab)
            for line in text.notes():
                self._note(line)
            origin = warm_start.origin_of(self._config, learner.model, text.vocab, self._note, {})
            material = setup.begin(folder, self._config, text, origin)
        except Exception:
            folder.discard_begun()
            raise
        return Opened(material, learner, Progress())

    def _resume(self, source: Source | None, started_at: float, *, may_change: bool) -> Opened:
        folder = self._folder
        stored = folder.read_config()
        self._config.check_resumes(stored)
        name, checkpoint = newest_intact(folder, self._note)
        if checkpoint is None:
            self._note("the run has no checkpoint yet: it begins anew")
            standing = Standing()
            material = setup.reopen(folder, source, standing, may_change=may_change)
            learner, progress = self._learner(material.vocab), Progress()
            origin = material.info.get("origin", {})
            warm_start.origin_of(self._config, learner.model, material.vocab, self._note, origin)
        else:
            learner, progress = self._restored(checkpoint)
            standing = self._standing(checkpoint.state, progress, started_at)
            material = setup.reopen(folder, source, standing, may_change=may_change)
            self._go_on(standing, material, progress)
        if self._config != stored and not standing.is_over:
            folder.write_config(self._config)
        return Opened(material, learner, progress, name)

    def _restored(self, checkpoint: Checkpoint) -> tuple[Learner, Progress]:
        vocab = self._folder.read_vocab()
        learner = self._learner(vocab)
        check_state(self._config, checkpoint.state, vocab)
        for line in differences(checkpoint.state, learner.device.type, self._world.size):
            self._note(line)
        learner.restore(checkpoint.weights, checkpoint.tensors)
        return learner, Progress.from_json(checkpoint.state["progress"])

    def _standing(self, state: Mapping[str, Any], progress: Progress, started_at: float) -> Standing:
        elapsed_s = progress.elapsed_s + self._clock() - started_at
        is_over = progress.is_over(self._config.max_minutes, elapsed_s)
        return Standing(progress.step, state["corpus_sha256"], is_over)

    def _go_on(self, standing: Standing, material: Material, progress: Progress) -> None:
        self._note(f"resuming at step {progress.step}")
        if standing.is_over:
            self._note("the run is finished: there is nothing to train; its text stays as it is")
        elif standing.corpus_sha256 != material.corpus_sha256:
            self._note("the corpus has changed: going on at its beginning")
            progress.begin_text()

    def _learner(self, vocab: Vocab) -> Learner:
        """A new one, after a word on its memory if that will not suffice."""
        device = choose_device(self._config.device)
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
        if (warning := shortage(self._config, len(vocab), free)) is not None:
            self._note(warning)
        return Learner(self._config, len(vocab), self._world)


def _exists(folder: RunFolder) -> str:
    return (
        f"{folder.path} exists and is not empty: give --resume to go on with the run in it, or another --out"
    )


def _is_barely_begun(folder: RunFolder, resume: bool) -> bool:
    """Whether a run was killed before the second of its own files."""
    names = {path.name for path in folder.path.iterdir() if not path.name.startswith(".")}
    return resume and names <= {folder.config.name, folder.stdin.name}

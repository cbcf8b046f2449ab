"""Opening, running and closing a training run: the short Python interface to it all."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from charrnn.errors import CharrnnError, CheckpointError, ConfigError
from charrnn.training import setup, warm_start
from charrnn.training.callbacks import Callback, Callbacks
from charrnn.training.checkpoint import Checkpoint
from charrnn.training.config import TrainConfig
from charrnn.training.distributed import World, joined
from charrnn.training.faults import enough_memory
from charrnn.training.files import write_json
from charrnn.training.following import open_together
from charrnn.training.forecast import Facts, Forecast, free_memory, shortage
from charrnn.training.learner import Learner, choose_device
from charrnn.training.loop import TrainingLoop
from charrnn.training.parts import Parts
from charrnn.training.precision import deterministic
from charrnn.training.progress import Progress
from charrnn.training.restore import check_state, differences, newest_intact
from charrnn.training.run_folder import RunFolder
from charrnn.training.setup import Material, Standing
from charrnn.training.signals import StopSignal, Wish
from charrnn.training.sources import STDIN, Source, Words, as_words, find_source
from charrnn.vocab import Vocab


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    ``losses`` are the last of each part, in nats; ``stopped_by`` is the signal that ended it early, or the
    reason given to ``Trainer.stop``, after which there is no sample. ``is_stale`` says that ``patience``
    ended it. ``rank`` is that of this process; all of a training have the same result.
    """

    path: Path
    step: int
    losses: Mapping[str, float]
    best_step: int | None
    best_nats: float | None
    sample: str
    stopped_by: Wish | None
    is_stale: bool = False
    rank: int = 0


class Trainer:
    """Trains a model as a configuration says.

    Args:
        config: the settings; all have defaults.
        callbacks: who is told meanwhile, in this order; nobody by default.
        clock: seconds that only go forward, for ``max_minutes``.

    A process trains one model at a time: torch's random numbers and number of threads belong to the process.
    Started by torchrun, all processes train one model together; the callbacks of the first one are told.
    """

    def __init__(
        self,
        config: TrainConfig | None = None,
        *,
        callbacks: Iterable[Callback] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not isinstance(config, TrainConfig | None):
            raise TypeError(f"config is of type {type(config).__name__}: give a TrainConfig, or None")
        self.config = config or TrainConfig()
        self._callbacks = Callbacks(callbacks)
        self._clock = clock
        self._stop: StopSignal | None = None
        self._world = World()

    def fit(
        self,
        corpus: Words | None = None,
        *,
        out: str | os.PathLike[str],
        resume: bool = False,
        allow_data_change: bool = False,
    ) -> TrainResult:
        """Train on a text and leave the run in the folder ``out``.

        ``corpus`` is one or several of a file, a folder (all files below it), a pattern, ``-`` for stdin or
        the name of a built-in corpus; None is ``pydoc-topics``. Several files are joined in order with
        nothing between them; with a ``separator`` a file's end also ends a document.

        With ``resume`` the run in ``out`` goes on from its newest intact checkpoint to the same end, bit for
        bit, that it would have had; ``corpus`` None is then the text it was begun with. Ctrl-C and SIGTERM
        end the step at hand and save.

        Raises:
            ConfigError: ``out`` holds something already, another process trains in it, the settings are not
                those of the run, or the text has changed.
            DataError: the text cannot be read, or is too small.
            CheckpointError: the run is damaged, or cannot be saved.
            DivergedError: losses or gradients were not finite several times in a row.
            CallbackError: a callback failed; the run is as its last checkpoint has it.
        """
        started_at = self._clock()
        folder = RunFolder(out)
        with (
            self._listening(),
            joined(self.config.batch_size) as self._world,
            _naming(folder),
            enough_memory(self.config, folder),
            deterministic(self.config.deterministic),
            ExitStack() as held,
            StopSignal() as self._stop,
        ):
            open_run = partial(
                self._lead, held, folder, corpus, started_at, resume=resume, may_change=allow_data_change
            )
            loop = open_together(self._world, self.config, folder, self._clock, open_run)
            stopped_by = loop.run(self._stop)
            sample = "" if stopped_by is not None else loop.sample()
            result = _result(loop, sample, stopped_by, self._world.rank)
            if self._world.rank == 0:
                self._callbacks.ended(result)
        return result

    def stop(self, reason: str) -> None:
        """Have the step at hand finished, the run saved and ``fit`` return; from a callback or a thread.

        ``reason`` becomes the result's ``stopped_by``. Where nothing is being trained it does nothing.
        """
        if self._stop is not None:
            self._stop.ask(reason)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Close the callbacks when the block ends, without hiding the error that ended it."""
        try:
            yield
        except BaseException:
            with suppress(CharrnnError):
                self._callbacks.close()
            raise
        finally:
            self._stop = None
        self._callbacks.close()

    def _lead(
        self,
        held: ExitStack,
        folder: RunFolder,
        corpus: Words | None,
        started_at: float,
        *,
        resume: bool,
        may_change: bool,
    ) -> TrainingLoop:
        choose_device(self.config.device)  # before anything is written
        held.enter_context(folder.locked())
        folder.remove_leftovers()
        return self._open(folder, corpus, started_at, resume=resume, may_change=may_change)

    def _open(
        self, folder: RunFolder, corpus: Words | None, started_at: float, *, resume: bool, may_change: bool
    ) -> TrainingLoop:
        if self.config.threads is not None:
            torch.set_num_threads(self.config.threads)
        if not folder.info.exists():
            return self._begin(folder, corpus, started_at, resume=resume)
        if not resume:
            raise ConfigError(_exists(folder))
        source = None if corpus is None else self._source(folder, corpus)
        return self._resume(folder, source, started_at, may_change=may_change)

    def _source(self, folder: RunFolder, corpus: Words | None) -> Source:
        if STDIN in as_words(corpus) and folder.stdin.exists():
            self._callbacks.note(f"stdin is not read: {folder.stdin} has what came from there")
        return find_source(corpus, spool=folder.stdin, leave_out=folder.path)

    def _begin(
        self, folder: RunFolder, corpus: Words | None, started_at: float, *, resume: bool
    ) -> TrainingLoop:
        try:
            if resume and corpus is None:
                raise ConfigError(f"{folder.path} holds no run to resume: give the corpus to begin one")
            if not (folder.is_empty() or _is_barely_begun(folder, resume)):
                raise ConfigError(_exists(folder))
        except ConfigError:
            folder.discard_if_empty()
            raise
        try:
            text = setup.look_at(self._source(folder, corpus), self.config)
            learner = self._learner(text.vocab)
            for line in text.notes():
                self._callbacks.note(line)
            origin = warm_start.origin_of(self.config, learner.model, text.vocab, self._callbacks.note, {})
            material = setup.begin(folder, self.config, text, origin)
        except Exception:
            folder.discard_begun()
            raise
        return self._loop(folder, material, learner, Progress(), started_at)

    def _resume(
        self, folder: RunFolder, source: Source | None, started_at: float, *, may_change: bool
    ) -> TrainingLoop:
        stored = folder.read_config()
        self.config.check_resumes(stored)
        name, checkpoint = newest_intact(folder, self._callbacks.note)
        if checkpoint is None:
            self._callbacks.note("the run has no checkpoint yet: it begins anew")
            standing = Standing()
            material = setup.reopen(folder, source, standing, may_change=may_change)
            learner, progress = self._learner(material.vocab), Progress()
            origin = material.info.get("origin", {})
            warm_start.origin_of(self.config, learner.model, material.vocab, self._callbacks.note, origin)
        else:
            learner, progress = self._restored(folder, checkpoint)
            standing = self._standing(checkpoint.state, progress, started_at)
            material = setup.reopen(folder, source, standing, may_change=may_change)
            self._go_on(standing, material, progress)
        if self.config != stored and not standing.is_over:
            write_json(folder.config, self.config.to_json())
        loop = self._loop(folder, material, learner, progress, started_at)
        if checkpoint is not None:
            loop.publish(name)
        return loop

    def _restored(self, folder: RunFolder, checkpoint: Checkpoint) -> tuple[Learner, Progress]:
        vocab = folder.read_vocab()
        learner = self._learner(vocab)
        check_state(self.config, checkpoint.state, vocab)
        for line in differences(checkpoint.state, learner.device.type, self._world.size):
            self._callbacks.note(line)
        learner.restore(checkpoint.weights, checkpoint.tensors)
        return learner, Progress.from_json(checkpoint.state["progress"])

    def _standing(self, state: Mapping[str, Any], progress: Progress, started_at: float) -> Standing:
        elapsed_s = progress.elapsed_s + self._clock() - started_at
        is_over = progress.is_over(self.config.max_minutes, elapsed_s)
        return Standing(progress.step, state["corpus_sha256"], is_over)

    def _go_on(self, standing: Standing, material: Material, progress: Progress) -> None:
        self._callbacks.note(f"resuming at step {progress.step}")
        if standing.is_over:
            self._callbacks.note("the run is finished: there is nothing to train; its text stays as it is")
        elif standing.corpus_sha256 != material.corpus_sha256:
            self._callbacks.note("the corpus has changed: going on at its beginning")
            progress.begin_text()

    def _learner(self, vocab: Vocab) -> Learner:
        """A new one, after a word on its memory if that will not suffice."""
        device = choose_device(self.config.device)
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
        if (warning := shortage(self.config, len(vocab), free)) is not None:
            self._callbacks.note(warning)
        return Learner(self.config, len(vocab), self._world)

    def _loop(
        self, folder: RunFolder, material: Material, learner: Learner, progress: Progress, started_at: float
    ) -> TrainingLoop:
        told = (self._callbacks, self._clock, self._world)
        parts = Parts(self.config, folder, material, learner, progress, *told)
        loop = TrainingLoop(parts, started_at)
        facts = _facts(parts, loop.steps_per_epoch)
        self._callbacks.started(self, facts)
        for line in facts.lines():
            self._callbacks.note(line)
        parts.callbacks = Callbacks([self._callbacks, Forecast(facts, self._callbacks.note, self._clock)])
        return loop


@contextmanager
def _naming(folder: RunFolder) -> Iterator[None]:
    """Say of an error of the disk which run it met, and what may help."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EPIPE:  # of a reader, not of the disk
            raise
        raise CheckpointError(
            f"cannot use run folder {folder.path}: {error.strerror or error}; "
            "see that it can be read and written and that its disk has room"
        ) from error


def _exists(folder: RunFolder) -> str:
    return (
        f"{folder.path} exists and is not empty: give --resume to go on with the run in it, or another --out"
    )


def _is_barely_begun(folder: RunFolder, resume: bool) -> bool:
    """Whether a run was killed before the second of its own files."""
    names = {path.name for path in folder.path.iterdir() if not path.name.startswith(".")}
    return resume and names <= {folder.config.name, folder.stdin.name}


def _facts(parts: Parts, steps_per_epoch: int) -> Facts:
    """What is trained on what, for how long."""
    return Facts(
        path=parts.folder.path,
        config=parts.config,
        corpus=parts.material.info["corpus"]["name"],
        split=parts.material.split.name,
        sizes=parts.material.split.sizes,
        vocab_size=len(parts.material.vocab),
        device=str(parts.learner.device),
        threads=torch.get_num_threads(),
        step=parts.progress.step,
        total_steps=parts.progress.total_steps,
        steps_per_epoch=steps_per_epoch,
    )


def _result(loop: TrainingLoop, sample: str, stopped_by: Wish | None, rank: int) -> TrainResult:
    progress = loop.progress
    return TrainResult(
        path=loop.folder.path,
        step=progress.step,
        losses=progress.losses,
        best_step=progress.best_step,
        best_nats=progress.best_nats,
        sample=sample,
        stopped_by=stopped_by,
        is_stale=progress.is_stale,
        rank=rank,
    )

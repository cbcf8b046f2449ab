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

import torch

from charrnn.errors import CharrnnError, CheckpointError
from charrnn.training.callbacks import Callback, Callbacks
from charrnn.training.config import TrainConfig
from charrnn.training.distributed import World, joined
from charrnn.training.faults import enough_memory
from charrnn.training.following import open_together
from charrnn.training.forecast import Facts, Forecast
from charrnn.training.learner import choose_device
from charrnn.training.loop import TrainingLoop
from charrnn.training.opening import Opened, Opening
from charrnn.training.parts import Parts
from charrnn.training.precision import deterministic
from charrnn.training.run_folder import RunFolder
from charrnn.training.signals import StopSignal, Wish
from charrnn.training.sources import Words


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
        bit, that it would have had; ``corpus`` None is then the text it was begun with. Ctrl-C, SIGTERM
        and SIGHUP end the step at hand and save.

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
        opening = Opening(self.config, folder, self._world, self._callbacks.note, self._clock)
        opened = opening.open(corpus, started_at, resume=resume, may_change=may_change)
        loop = self._loop(folder, opened, started_at)
        if opened.checkpoint:
            loop.publish(opened.checkpoint)
        return loop

    def _loop(self, folder: RunFolder, opened: Opened, started_at: float) -> TrainingLoop:
        told = (self._callbacks, self._clock, self._world)
        parts = Parts(self.config, folder, opened.material, opened.learner, opened.progress, *told)
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

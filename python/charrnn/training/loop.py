"""The training loop: windows through the learner, and what falls due between them.

Knows neither the command line nor how a run is opened; everything it needs is handed to it.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from charrnn.errors import DivergedError
from charrnn.training.callbacks import Callback, Evaluated, Stepped
from charrnn.training.checkpoint import (
    Checkpoint,
    folder_name,
    list_checkpoints,
    prune,
    save_checkpoint,
    step_of,
)
from charrnn.training.config import TrainConfig
from charrnn.training.evaluation import evaluate
from charrnn.training.files import replacing, sha256_json
from charrnn.training.learner import Learner, Learnt
from charrnn.training.metrics import MetricsFile
from charrnn.training.plan import (
    MEASURED_STEPS,
    WARM_STEPS,
    learning_rate,
    num_steps,
    steps_between_evaluations,
    steps_that_fit,
)
from charrnn.training.progress import Progress
from charrnn.training.run_folder import RunFolder
from charrnn.training.sampling import sample_text
from charrnn.training.setup import Material
from charrnn.training.signals import StopSignal
from charrnn.training.windows import Windows

LOG_EVERY = 50
MAX_SKIPPED = 3


@dataclass(frozen=True)
class Parts:
    """What a loop works with."""

    config: TrainConfig
    folder: RunFolder
    material: Material
    learner: Learner
    progress: Progress
    callbacks: Callback
    clock: Callable[[], float] = time.monotonic


class TrainingLoop:
    """Trains until the planned steps are made, the time is over or somebody asks to stop.

    The recurrent state is carried from window to window and is zero again at the start of every epoch.
    """

    def __init__(self, parts: Parts, started_at: float) -> None:
        self.config, self.folder, self.material = parts.config, parts.folder, parts.material
        self.learner, self.progress, self.callbacks = parts.learner, parts.progress, parts.callbacks
        self._clock = parts.clock
        self._began = started_at - parts.progress.elapsed_s
        text = parts.material.parts
        self._windows = Windows(text["train"], self.config.batch_size, self.config.bptt)
        self._validation = text.get("validation")
        self._eval_every = steps_between_evaluations(self.config, len(self._windows))
        self._steps_here, self._warm_at, self._eval_s = 0, 0.0, 0.0
        self._metrics: MetricsFile  # open while it runs
        if self.progress.total_steps is None:
            self.progress.total_steps = num_steps(self.config, len(self._windows))

    @property
    def steps_per_epoch(self) -> int:
        """Windows that the training part is cut into."""
        return len(self._windows)

    def run(self, stop: StopSignal) -> signal.Signals | str | None:
        """Train to the end, or save and return the signal or the reason that asked to stop.

        Raises:
            DivergedError: too many steps in a row were not finite; the last checkpoint is from before.
            CheckpointError: a checkpoint cannot be written.
        """
        self._metrics = MetricsFile(self.folder.metrics, self.progress.step)
        try:
            is_over = self._is_over()
            while not is_over:
                if stop.received is not None:
                    self._save_once()
                    return stop.received
                learnt = self._step()
                is_over = self._is_over()
                if is_over or self.progress.step % LOG_EVERY == 0:
                    self._log(learnt)
                self._after_step(is_last=is_over)
            return None
        finally:
            self._metrics.close()

    def sample(self) -> str:
        """Draw a sample from the model as it is, and keep it in the run folder.

        Where nothing was trained the sample that is there already stays as it is.
        """
        config = self.config
        text = sample_text(
            self.learner.model, self.material.vocab, num_tokens=config.sample_chars, seed=config.seed
        )
        path = self.folder.samples / f"{folder_name(self.progress.step)}.txt"
        if self._steps_here or not path.exists():
            self.folder.samples.mkdir(exist_ok=True)
            with replacing(path) as file:
                file.write(text.encode())
        self.callbacks.sampled(self.progress.step, text)
        return text

    def _save_once(self) -> None:
        if folder_name(self.progress.step) not in list_checkpoints(self.folder.checkpoints):
            self.save()

    def save(self) -> None:
        """Write a checkpoint of this moment and let go of those no longer needed.

        Raises:
            DivergedError: a weight is not finite; nothing has been written.
            CheckpointError: the disk does not take it.
        """
        if not self.learner.is_finite():
            raise DivergedError(self._diverged("weights are not finite"))
        self.progress.elapsed_s = self._elapsed()
        self._metrics.sync()
        checkpoint = Checkpoint(self.learner.weights(), self.learner.tensors(), self._state())
        name = save_checkpoint(self.folder.checkpoints, self.progress.step, checkpoint)
        self.publish(name)
        self.callbacks.saved(self.progress.step, self.folder.checkpoints / name)

    def publish(self, last: str) -> None:
        """Name the last checkpoint, the one before it and the best in run.json; delete the others."""
        names = list_checkpoints(self.folder.checkpoints)
        best = folder_name(self.progress.best_step) if self.progress.best_step is not None else last
        known = {"last": last, "best": best if best in names else last}
        if earlier := [name for name in names if step_of(name) < step_of(last)]:
            known["previous"] = earlier[0]
        self.folder.write_info({**self.material.info, "checkpoints": known})
        prune(self.folder.checkpoints, set(known.values()))

    def _state(self) -> dict[str, Any]:
        config = self.config
        return {
            "progress": self.progress.to_json(),
            "schedule": {"name": config.schedule, "lr": config.lr, "total_steps": self.progress.total_steps},
            "split": self.material.split.name,
            "corpus_sha256": self.material.corpus_sha256,
            "vocab_sha256": sha256_json(self.material.vocab.to_json()),
            "config": config.to_json(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "device": self.learner.device.type,
        }

    def _elapsed(self) -> float:
        return self._clock() - self._began

    def _is_over(self) -> bool:
        # The evaluation that ends a run has its place within the limit.
        return self.progress.is_over(self.config.max_minutes, self._elapsed() + self._eval_s)

    def _step(self) -> Learnt:
        progress = self.progress
        if progress.window == 0:
            self.learner.reset_state()
        inputs, targets = self._windows[progress.window]
        lr = learning_rate(self.config, progress.step, progress.total_steps)
        learnt = self.learner.learn(inputs, targets, lr)
        progress.advance(len(self._windows))
        self._account(learnt)
        numbers = (learnt.nats, inputs.numel(), lr, learnt.gradient_norm, learnt.is_applied)
        self.callbacks.stepped(Stepped(progress.step, progress.total_steps, *numbers))
        return learnt

    def _account(self, learnt: Learnt) -> None:
        progress = self.progress
        if learnt.is_applied:
            progress.num_skipped = 0
            progress.nats_sum, progress.nats_count = progress.nats_sum + learnt.nats, progress.nats_count + 1
            return
        progress.num_skipped += 1
        told = {"train_nats": learnt.nats, "gradient_norm": learnt.gradient_norm}
        self._metrics.write("skipped", progress.step, **told)
        what = f"loss {learnt.nats:g} and gradient norm {learnt.gradient_norm:g} are not both finite"
        if progress.num_skipped >= MAX_SKIPPED:
            raise DivergedError(self._diverged(f"{what}, {MAX_SKIPPED} steps in a row"))
        self.callbacks.note(f"step {progress.step}: {what}: step not applied")

    def _diverged(self, what: str) -> str:
        kept = list_checkpoints(self.folder.checkpoints)
        last = f"the last good checkpoint is {kept[0]}" if kept else "there is no checkpoint from before"
        return f"training diverged at step {self.progress.step}: {what}; {last}; start anew with a lower --lr"

    def _log(self, learnt: Learnt) -> None:
        progress = self.progress
        self._metrics.write(
            "train",
            progress.step,
            epoch=progress.epoch,
            train_nats=progress.take_mean_nats(),
            lr=learning_rate(self.config, progress.step - 1, progress.total_steps),
            gradient_norm=learnt.gradient_norm,
            elapsed_s=round(self._elapsed(), 3),
        )

    def _after_step(self, *, is_last: bool) -> None:
        step = self.progress.step
        is_decided = self._decide_total()
        is_due = step % self._eval_every == 0 or is_last or is_decided
        is_best = self._evaluate() if is_due else False
        if is_decided:
            self._plan_rest()
        if step in self.config.sample_at:
            self.sample()
        if is_best or is_last or is_decided or step % self.config.checkpoint_every == 0:
            self.save()

    def _decide_total(self) -> bool:
        """Whether this is the step after which a run that only knows its minutes plans its steps."""
        self._steps_here += 1
        if self._steps_here == WARM_STEPS:
            self._warm_at = self._clock()
        if self.progress.total_steps is not None or self._steps_here != MEASURED_STEPS:
            return False
        self._step_s = (self._clock() - self._warm_at) / (MEASURED_STEPS - WARM_STEPS)
        return True

    def _plan_rest(self) -> None:
        assert self.config.max_minutes is not None
        left = self.config.max_minutes * 60 - self._elapsed() - self._eval_s
        more = steps_that_fit(left, self._step_s, self._eval_s, self._eval_every)
        self.progress.total_steps = self.progress.step + more
        self.callbacks.note(f"{self.progress.total_steps} steps fit into {self.config.max_minutes:g} min")

    def _evaluate(self) -> bool:
        """Predict the validation part, if there is one; whether no evaluation before was better."""
        if self._validation is None:
            return False
        began = self._clock()
        loss = evaluate(self.learner.model, self._validation)
        self._eval_s = self._clock() - began
        self.progress.losses["validation"] = loss.nats
        is_best = self.progress.is_best(loss.nats)
        split = self.material.split.name
        self._metrics.write("eval", self.progress.step, split=split, validation_nats=loss.nats, bpc=loss.bpc)
        self.callbacks.evaluated(Evaluated(self.progress.step, split, loss, is_best))
        return is_best

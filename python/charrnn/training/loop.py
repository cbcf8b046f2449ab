"""The training loop: windows through the learner, and what falls due between them.

Knows neither the command line nor how a run is opened; everything it needs is handed to it.
"""

from __future__ import annotations

from typing import Any

from charrnn.training.callbacks import Evaluated, Stepped
from charrnn.training.documents import training_windows
from charrnn.training.evaluation import Loss, evaluate
from charrnn.training.faults import Faults
from charrnn.training.learner import Learnt
from charrnn.training.metrics import MetricsFile, NoMetrics
from charrnn.training.pacing import Pacing
from charrnn.training.parts import Parts
from charrnn.training.plan import learning_rate, num_steps, steps_between_evaluations
from charrnn.training.sampling import sample_documents, sample_text
from charrnn.training.saving import Saver, publish
from charrnn.training.signals import StopSignal, Wish

LOG_EVERY = 50


class TrainingLoop:
    """Trains until the planned steps are made, the time is over or somebody asks to stop.

    The recurrent state is carried from window to window and is zero again where a text begins: at the start
    of every epoch, or of every batch of documents.
    """

    def __init__(self, parts: Parts, started_at: float) -> None:
        self.config, self.folder, self.material = parts.config, parts.folder, parts.material
        self.learner, self.progress = parts.learner, parts.progress
        self._parts, self._world = parts, parts.world
        self._clock = parts.world.clock(parts.clock)
        self._began = started_at - parts.progress.elapsed_s
        text = parts.material.parts
        self._windows = training_windows(text["train"], parts.material.end_token, self.config)
        self._validation = text.get("validation")
        self._eval_every = steps_between_evaluations(self.config, len(self._windows))
        self._has_trained, self._eval_s = False, 0.0
        # Open while it runs.
        self._metrics: MetricsFile
        self._saver: Saver
        self._faults: Faults
        if self.progress.total_steps is None:
            self.progress.total_steps = num_steps(self.config, len(self._windows))
        self._pacing = Pacing(self.config, self.progress, self._clock, self._eval_every)
        # Where another rank has to begin: that of rank 0.
        self.standing: dict[str, Any] = {
            "checkpoint": None,
            "progress": parts.progress.to_json(),
            "started_at": started_at,
        }

    @property
    def steps_per_epoch(self) -> int:
        """Windows that the training part is cut into."""
        return len(self._windows)

    def run(self, stop: StopSignal) -> Wish | None:
        """Train to the end, or save and return the signal or the reason that asked to stop.

        Raises:
            DivergedError: too many steps in a row were not finite; the last checkpoint is from before.
            CheckpointError: the last checkpoint cannot be written, or any if the run is strict.
        """
        is_first = self._world.rank == 0
        self._metrics = MetricsFile(self.folder.metrics, self.progress.step) if is_first else NoMetrics()
        self._saver, self._faults = Saver(self._parts, self._metrics), Faults(self._parts, self._metrics)
        try:
            is_over = self._is_over()
            while not is_over:
                wish = self._world.any_stop(stop.received)
                if wish is not None:
                    self._remember_elapsed()
                    self._saver.save_once()
                    return wish
                is_over = self._after_step(self._step())
            return None
        finally:
            self._metrics.close()

    def publish(self, last: str) -> None:
        """The checkpoint to go on from, which ``last`` names, is chosen."""
        self.standing["checkpoint"] = last
        publish(self._parts, last)

    def sample(self, *, is_last: bool = True) -> str:
        """Draw a sample from the model as it is, and keep it in the run folder.

        Where nothing was trained the sample that is there already stays as it is.
        """
        return self._world.first(lambda: self._sample(is_last=is_last))

    def _sample(self, *, is_last: bool) -> str:
        config, step = self.config, self.progress.step
        model, vocab, end = self.learner.model, self.material.vocab, self.material.end_token
        size, seed = config.sample_chars, config.seed
        if end is None:
            text = sample_text(model, vocab, num_tokens=size, seed=seed)
        else:
            text = config.separator.join(sample_documents(model, vocab, end, num_tokens=size, seed=seed))
        if self._has_trained or not self._saver.sample_path.exists():
            self._saver.keep_sample(text, is_last=is_last)
        self._parts.callbacks.sampled(step, text)
        return text

    def _remember_elapsed(self) -> None:
        self.progress.elapsed_s = self._elapsed()

    def _elapsed(self) -> float:
        return self._clock() - self._began

    def _is_over(self) -> bool:
        # The evaluation that ends a run has its place within the limit.
        return self.progress.is_over(self.config.max_minutes, self._elapsed() + self._eval_s)

    def _step(self) -> Learnt:
        progress = self.progress
        window = self._windows.window(progress.epoch, progress.window)
        if window.is_first:
            self.learner.reset_state()
        self._lr = learning_rate(self.config, progress.step, progress.total_steps, progress.epoch)
        self._has_trained = True
        learnt = self.learner.learn(window.inputs, window.targets, self._lr)
        progress.advance(len(self._windows))
        if learnt.is_applied:
            progress.count(learnt.nats)
        elif not learnt.is_overflow:
            self._faults.met(learnt, window.inputs, window.targets)
        numbers = (learnt.nats, window.num_tokens, self._lr, learnt.gradient_norm, learnt.is_applied)
        self._parts.callbacks.stepped(Stepped(progress.step, progress.total_steps, *numbers))
        return learnt

    def _log(self, learnt: Learnt) -> None:
        progress = self.progress
        self._metrics.write(
            "train",
            progress.step,
            epoch=progress.epoch,
            train_nats=progress.take_mean_nats(),
            lr=self._lr,
            gradient_norm=learnt.gradient_norm,
            elapsed_s=round(self._elapsed(), 3),
        )

    def _after_step(self, learnt: Learnt) -> bool:
        """All that falls due after a step; whether it was the last."""
        step, is_over = self.progress.step, self._is_over()
        is_first_plan = self._pacing.is_first_due()
        if is_over or step % LOG_EVERY == 0:
            self._log(learnt)
        is_due = step % self._eval_every == 0 or is_over or is_first_plan
        is_best = self._evaluate() if is_due else False
        is_over = is_over or self.progress.is_stale
        is_planned = not is_over and self._plan()
        if step in self.config.sample_at:
            self.sample(is_last=False)
        if is_best or is_over or is_planned or step % self.config.checkpoint_every == 0:
            self._remember_elapsed()
            self._saver.save(is_last=is_over)
        return is_over

    def _plan(self) -> bool:
        """Whether the end of the run has been moved."""
        told = self._pacing.plan(self._elapsed, self._eval_s)
        if told is not None:
            self._parts.callbacks.note(told)
        return told is not None

    def _evaluate(self) -> bool:
        """Predict the validation part, if there is one; whether no evaluation before was better."""
        if self._validation is None:
            return False
        began, tokens, end = self._clock(), self._validation, self.material.end_token
        nats, num_tokens = self._world.first(
            lambda: _measured(evaluate(self.learner.model, tokens, end_token=end))
        )
        self._eval_s = self._clock() - began
        self._pacing.pause(self._eval_s)
        self._note_loss(Loss(nats, num_tokens))
        return self.progress.best_step == self.progress.step

    def _note_loss(self, loss: Loss) -> None:
        progress, split = self.progress, self.material.split.name
        progress.losses["validation"] = loss.nats
        is_best = progress.is_best(loss.nats, self.config.patience)
        self._metrics.write("eval", progress.step, split=split, validation_nats=loss.nats, bpc=loss.bpc)
        self._parts.callbacks.evaluated(Evaluated(progress.step, split, loss, is_best))
        if progress.is_stale:
            self._parts.callbacks.note(
                f"no better validation loss in {progress.num_worse} evaluations: stopped at step "
                f"{progress.step}, the best was at step {progress.best_step}"
            )


def _measured(loss: Loss) -> list[Any]:
    return [loss.nats, loss.num_tokens]

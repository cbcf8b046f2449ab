"""How many steps a run makes that is only told its minutes: planned after the first few, and again later.

The first steps may have been slow because of another job, or fast before one came. A new plan moves the end
of the schedule, so the loop saves whenever there is one: a run resumed from there has the same end.
Knows numbers and a clock, not weights.
"""

from __future__ import annotations

from collections.abc import Callable

from charrnn.training.config import TrainConfig
from charrnn.training.plan import MEASURED_STEPS, WARM_STEPS, num_steps, steps_that_fit
from charrnn.training.progress import Progress

# A later plan is made from so many steps at least, and from this share of the minutes; and only if it
# changes the whole by this share. Whether it is time for one is asked every few steps.
_NUM_STEPS, _SHARE, _LEAST_CHANGE, _ASK_EVERY = 50, 0.05, 0.05, 10


class Pacing:
    """Plans ``progress.total_steps``; does nothing where the settings say how many steps there are.

    Args:
        clock: seconds that only go forward.
        eval_every: steps between evaluations, which take their time too.
    """

    def __init__(
        self, config: TrainConfig, progress: Progress, clock: Callable[[], float], eval_every: int
    ) -> None:
        self._minutes = config.max_minutes if num_steps(config, 1) is None else None
        self._progress, self._clock, self._eval_every = progress, clock, eval_every
        self._num_steps = 0
        # Where the measurement began: step and time; and what passed since without a step.
        self._from_step, self._from_s, self._aside_s = 0, 0.0, 0.0

    def is_first_due(self) -> bool:
        """A step has been made; whether it is time for the first plan."""
        if self._minutes is None:
            return False
        self._num_steps += 1
        if self._num_steps == WARM_STEPS:
            self._begin()
        return self._progress.total_steps is None and self._num_steps == MEASURED_STEPS

    def pause(self, seconds: float) -> None:
        """Time has passed without a step: an evaluation."""
        self._aside_s += seconds

    def plan(self, elapsed_s: Callable[[], float], eval_s: float) -> str | None:
        """Plan if there is reason to. Returns what to say of a new plan.

        Args:
            elapsed_s: the seconds the run has had so far; asked only when there may be a plan.
            eval_s: what an evaluation takes.
        """
        step, before = self._progress.step, self._progress.total_steps
        if self._minutes is None or not self._has_steps(step, before):
            return None
        seconds = self._clock() - self._from_s
        if before is not None and seconds < _SHARE * self._minutes * 60:
            return None
        step_s = (seconds - self._aside_s) / (step - self._from_step)
        left_s = self._minutes * 60 - elapsed_s() - eval_s
        total = step + steps_that_fit(left_s, step_s, eval_s, self._eval_every)
        self._begin()
        if before is not None and abs(total - before) <= _LEAST_CHANGE * before:
            return None
        self._progress.total_steps = total
        changed = "" if before is None else f", not {before}: the pace has changed"
        return f"{total} steps fit into {self._minutes:g} min{changed}"

    def _has_steps(self, step: int, before: int | None) -> bool:
        if before is None:
            return self._num_steps >= MEASURED_STEPS
        enough = self._num_steps >= WARM_STEPS and step - self._from_step >= _NUM_STEPS
        return enough and step % _ASK_EVERY == 0

    def _begin(self) -> None:
        self._from_step, self._from_s, self._aside_s = self._progress.step, self._clock(), 0.0

"""Minutes become steps, and other steps when the pace changes; the numbers are reckoned by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from charrnn.training import TrainConfig, Trainer
from charrnn.training.callbacks import Callback, Stepped
from charrnn.training.pacing import Pacing
from charrnn.training.plan import MEASURED_STEPS, WARM_STEPS
from charrnn.training.progress import Progress
from tests.runs import Diary


class Course:
    """A run of 10 minutes with an evaluation of 4 s every 100 steps, at a pace that may change."""

    def __init__(self, config: TrainConfig | None = None) -> None:
        self.now, self.progress = 0.0, Progress()
        config = config or TrainConfig(max_minutes=10.0)
        self.pacing = Pacing(config, self.progress, lambda: self.now, eval_every=100)
        self.told: list[tuple[int, str]] = []

    def go(self, num_steps: int, step_s: float) -> None:
        for _ in range(num_steps):
            self.now += step_s
            self.progress.step += 1
            is_first = self.pacing.is_first_due()
            if is_first or self.progress.step % 100 == 0:
                self.now += 4.0
                self.pacing.pause(4.0)
            if (told := self.pacing.plan(lambda: self.now, 4.0)) is not None:
                self.told.append((self.progress.step, told))


def fit(left_s: float, step_s: float) -> int:
    return int((left_s - 4.0) * 0.95 / (step_s + 4.0 / 100))


def test_the_first_steps_decide_and_an_even_pace_keeps_the_plan() -> None:
    course = Course()
    course.go(900, 0.5)
    total = MEASURED_STEPS + fit(600.0 - MEASURED_STEPS * 0.5 - 4.0, 0.5)
    assert course.told == [(MEASURED_STEPS, f"{total} steps fit into 10 min")]
    assert course.progress.total_steps == total


def test_the_warm_up_does_not_count() -> None:
    course = Course()
    course.go(WARM_STEPS, 30.0)
    course.go(MEASURED_STEPS - WARM_STEPS, 0.1)
    spent = 30.0 * WARM_STEPS + 0.1 * (MEASURED_STEPS - WARM_STEPS) + 4.0
    assert course.progress.total_steps == MEASURED_STEPS + fit(600.0 - spent, 0.1)


def test_a_run_that_began_beside_another_job_is_planned_anew() -> None:
    course = Course()
    course.go(50, 2.0)
    first = course.progress.total_steps
    course.go(200, 0.2)
    left = 600.0 - (50 * 2.0 + 200 * 0.2 + 3 * 4.0)
    assert course.progress.total_steps == pytest.approx(250 + fit(left, 0.2), rel=0.06)
    assert first is not None
    assert course.progress.total_steps > 4 * first
    assert course.told[-1][1].startswith(f"{course.progress.total_steps} steps fit into 10 min, not ")


def test_a_job_that_comes_later_shortens_the_plan() -> None:
    course = Course()
    course.go(100, 0.1)
    before = course.progress.total_steps
    course.go(200, 1.0)
    assert before is not None
    left = 600.0 - (100 * 0.1 + 200 * 1.0 + 4 * 4.0)
    assert course.progress.total_steps == pytest.approx(300 + fit(left, 1.0), rel=0.06)
    assert course.progress.total_steps < before / 2


def test_a_window_of_many_short_steps_is_long_enough_to_tell() -> None:
    course = Course()
    course.go(MEASURED_STEPS, 0.01)
    course.go(100, 0.05)  # a hiccup of 5 s, less than a twentieth of ten minutes
    assert [step for step, _ in course.told] == [MEASURED_STEPS]


def test_a_resumed_run_keeps_its_plan_until_it_has_measured() -> None:
    course = Course()
    course.progress.step, course.progress.total_steps = 90, 1000
    course.go(10, 50.0)
    assert course.told == []
    assert course.progress.total_steps == 1000


@pytest.mark.parametrize("end", [{"max_steps": 5}, {"max_epochs": 1}])
def test_a_run_that_knows_its_steps_keeps_them(end: dict[str, int]) -> None:
    course = Course(TrainConfig(max_minutes=10.0, **end))  # type: ignore[arg-type]
    course.progress.total_steps = 5
    course.go(300, 1.0)
    assert (course.told, course.progress.total_steps) == ([], 5)


class Slow(Callback):
    """A clock whose steps take 10 s at first and 1 s later, and which is looked at for nothing."""

    def __init__(self) -> None:
        self.now = 0.0

    def stepped(self, stepped: Stepped) -> None:
        self.now += 10.0 if stepped.step < 30 else 1.0


def test_a_new_plan_is_saved_at_once(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    config = small.replace(max_steps=None, max_minutes=15.0, eval_every=60, checkpoint_every=10**6)
    clock, diary, totals = Slow(), Diary(), {}

    class Saved(Callback):
        def saved(self, step: int, path: Path) -> None:
            totals[step] = json.loads((path / "state.json").read_text())["progress"]["total_steps"]

    trainer = Trainer(config, callbacks=[clock, diary, Saved()], clock=lambda: clock.now)
    result = trainer.fit(corpus, out=tmp_path / "run")
    plans = [int(note.split()[0]) for note in diary.notes if " steps fit into 15 min" in note]
    assert len(plans) > 1
    assert set(plans) <= set(totals.values())
    assert result.step == totals[result.step] == plans[-1] > 2 * plans[0]

from __future__ import annotations

import itertools

import pytest

from charrnn.training.config import TrainConfig
from charrnn.training.plan import learning_rate, num_steps, steps_between_evaluations, steps_that_fit


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, 20 * 70),
        ({"max_epochs": 3}, 3 * 70),
        ({"max_steps": 5}, 5),
        ({"max_minutes": 2.0}, None),
        ({"max_minutes": 2.0, "max_steps": 5}, 5),
        ({"max_minutes": 2.0, "max_epochs": 1}, 70),
    ],
)
def test_number_of_steps(settings: dict[str, float], steps: int | None) -> None:
    assert num_steps(TrainConfig(**settings), 70) == steps


def test_steps_that_fit_leave_room_for_evaluations() -> None:
    steps = steps_that_fit(100.0, 0.1, 2.0, 50)
    assert 90.0 < steps * 0.1 + steps / 50 * 2.0 <= 95.0
    assert steps_that_fit(-3.0, 0.1, 2.0, 50) == 1


@pytest.mark.parametrize(("steps", "between"), [(10, 250), (700, 700), (10**6, 5000)])
def test_an_evaluation_an_epoch_within_bounds(steps: int, between: int) -> None:
    assert steps_between_evaluations(TrainConfig(), steps) == between
    assert steps_between_evaluations(TrainConfig(eval_every=3), steps) == 3


def test_cosine_with_warm_up() -> None:
    config = TrainConfig(lr=1.0, warmup_steps=10)
    rates = [learning_rate(config, step, 110) for step in range(111)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert rates[110] == pytest.approx(0.0, abs=1e-12)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[10:]))


def test_warm_up_is_at_most_a_tenth() -> None:
    config = TrainConfig(lr=1.0, warmup_steps=100)
    assert learning_rate(config, 5, 50) == 1.0
    assert learning_rate(config, 0, 5) == 1.0


def test_constant_and_undecided_rates_stay_at_their_peak() -> None:
    constant = TrainConfig(lr=0.5, schedule="constant", warmup_steps=2)
    assert [learning_rate(constant, step, 1000) for step in (0, 1, 2, 999)] == [0.25, 0.5, 0.5, 0.5]
    assert learning_rate(TrainConfig(lr=0.5, warmup_steps=2), 999, None) == 0.5

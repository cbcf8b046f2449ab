"""How many steps a run takes and how fast it learns at each of them.

Knows numbers only: neither clocks nor weights.
"""

from __future__ import annotations

import math

from charrnn.training.config import DEFAULT_EPOCHS, TrainConfig

# A run that is only told its minutes times this many steps, leaves out the first few, and then decides.
MEASURED_STEPS, WARM_STEPS = 20, 3
# Part of the remaining time that is planned for; the rest is for what the measurement did not see.
_PLANNED_SHARE = 0.95


def num_steps(config: TrainConfig, steps_per_epoch: int) -> int | None:
    """Steps of the whole run; None if only time limits it, which has to be measured."""
    if config.max_steps is not None:
        return config.max_steps
    if config.max_epochs is not None:
        return config.max_epochs * steps_per_epoch
    return None if config.max_minutes is not None else DEFAULT_EPOCHS * steps_per_epoch


def steps_that_fit(seconds: float, step_s: float, eval_s: float, eval_every: int) -> int:
    """Steps, at least 1, for ``seconds`` in which an evaluation every ``eval_every`` steps has its place."""
    return max(1, int(seconds * _PLANNED_SHARE / (step_s + eval_s / eval_every)))


def steps_between_evaluations(config: TrainConfig, steps_per_epoch: int) -> int:
    """What was asked for, or once an epoch; more seldom in short epochs and more often in long ones."""
    return config.eval_every or min(5000, max(250, steps_per_epoch))


def learning_rate(config: TrainConfig, step: int, total: int | None, epoch: int = 0) -> float:
    """Rate of step ``step`` of epoch ``epoch``, both counted from 0: linear warm-up, then the schedule.

    ``cosine`` falls along half a cosine to 0 at ``total``; while that is not decided it stays at its peak.
    ``step`` falls as in Karpathy's char-rnn: by ``decay`` at the end of every epoch from ``decay_after`` on.
    """
    warmup = config.warmup_steps if total is None else min(config.warmup_steps, total // 10)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    if config.schedule == "step":
        return config.lr * config.decay ** max(0, epoch + 1 - max(1, config.decay_after))
    if total is None or config.schedule == "constant":
        return config.lr
    done = (step - warmup) / max(1, total - warmup)
    return config.lr * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))

"""Does a step graph compute what the torch model computes, and is a stream alone in its row?

Knows steppers only, so it judges any pair of models. Random tokens come from a fixed seed: the same weights
give the same figures.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from charrnn.export.stepping import Stepper, Tokens

BATCH_SIZES = (1, 2, 7, 64)
NUM_STEPS = 200
# Rows of the widest batch are stepped again in narrower ones for this many steps.
NUM_ROW_STEPS = 16
ROUNDING_FACTOR = 10

Differences = npt.NDArray[np.float64]


def logit_differences(model: Stepper, other: Stepper, vocab_size: int) -> Differences:
    """Largest absolute difference of two models' logits at each step, over every batch size: (NUM_STEPS,).

    Each side starts from zero and carries its own state, so an error that grows along a text is seen grown.
    NaN where either side has one.
    """
    # max of an array, unlike max(), lets a NaN through.
    grid = np.array([_by_step(model, other, tokens) for tokens in _token_grid(vocab_size)])
    return np.asarray(grid.max(axis=0))


def _token_grid(vocab_size: int) -> Iterator[Tokens]:
    for batch_size in BATCH_SIZES:
        yield np.random.default_rng(batch_size).integers(0, vocab_size, (batch_size, NUM_STEPS))


def _by_step(model: Stepper, other: Stepper, tokens: Tokens) -> list[float]:
    with np.errstate(invalid="ignore"):  # infinity less infinity is the NaN the caller looks for
        return [float(np.abs(a - b).max()) for a, b in zip(model(tokens), other(tokens), strict=True)]


def first_excess(differences: Differences, rounding: Differences, limit: float) -> tuple[int, float] | None:
    """The first step whose difference is above what it may be, and what it may be; None if there is none.

    A trained network on random tokens can amplify the last bit of a sum a hundredfold within 200 steps. So a
    step may differ by ``limit`` or by ``ROUNDING_FACTOR`` times the most that ``rounding`` has shown up to
    there: how far torch in float32 is from torch in double. A wrong graph is wrong at the first steps, where
    that is tiny.
    """
    allowed = np.maximum(limit, ROUNDING_FACTOR * np.maximum.accumulate(rounding))
    within = differences <= allowed  # False for NaN
    if within.all():
        return None
    step = int(within.argmin())
    return step, float(allowed[step])


def dependent_row(graph: Stepper, vocab_size: int) -> tuple[int, int] | None:
    """The first (batch size, row) whose logits change with the batch it is stepped in; None if there is none.

    Rows of a batch of 64 are stepped again alone and in smaller batches, at other places, and compared bit by
    bit.
    """
    size = max(BATCH_SIZES)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, vocab_size, (size, NUM_ROW_STEPS))
    full = list(graph(tokens))
    for batch_size in BATCH_SIZES:
        rows = rng.permutation(size)[:batch_size]
        for expected, logits in zip(full, graph(tokens[rows]), strict=True):
            # Compared as integers: NaN equals itself and 0.0 is not -0.0.
            differs = (expected[rows].view(np.int32) != logits.view(np.int32)).any(axis=1)
            if differs.any():
                return batch_size, int(rows[differs.argmax()])
    return None

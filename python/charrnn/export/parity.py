"""Does a step graph compute what the torch model computes, and is a stream alone in its row?

Knows steps only, so it judges any pair of models. Random tokens come from a fixed seed: the same weights
give the same figures.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from charrnn.export.stepping import State, Step, Stepper, Tokens

BATCH_SIZES = (1, 2, 7, 64)
NUM_STEPS = 200
# Rows of the widest batch are stepped again in narrower ones for this many steps.
NUM_ROW_STEPS = 16

Differences = npt.NDArray[np.float64]


def step_differences(model: Step, other: Step, vocab_size: int) -> Differences:
    """Largest absolute difference of logits and states at each step, over every batch size: (NUM_STEPS,).

    Both take each step from the state that ``model`` has reached by then. Left to its own state, a trained
    network amplifies the last bit of a sum a hundredfold and more within 200 steps of random tokens, which no
    limit can tell from a wrong graph. NaN where either side has one.
    """
    # max of an array, unlike max(), lets a NaN through.
    grid = np.array([list(_by_step(model, other, tokens)) for tokens in _token_grid(vocab_size)])
    return np.asarray(grid.max(axis=0))


def _token_grid(vocab_size: int) -> Iterator[Tokens]:
    for batch_size in BATCH_SIZES:
        yield np.random.default_rng(batch_size).integers(0, vocab_size, (batch_size, NUM_STEPS))


def _by_step(model: Step, other: Step, tokens: Tokens) -> Iterator[float]:
    state: State | None = None
    for column in np.ascontiguousarray(tokens.T):
        (expected, after), (found, found_after) = model(column, state), other(column, state)
        pairs = zip([expected, *after], [found, *found_after], strict=True)
        with np.errstate(invalid="ignore"):  # infinity less infinity is the NaN the caller looks for
            yield float(np.max([np.abs(a - b).max() for a, b in pairs]))
        state = after


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

"""Many texts from a trained model at once, to be judged: as token ids, at temperature 1.

Knows nothing of characters or files.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from charrnn.errors import DivergedError
from charrnn.sampler import Sampler, SamplingParams
from charrnn.training.grams import Tokens
from charrnn.training.model import CharRNN


@torch.inference_mode()
def draw_texts(
    model: CharRNN, start: int, *, num_texts: int, num_tokens: int, end: int | None = None
) -> list[Tokens]:
    """``num_texts`` texts of ``num_tokens`` after the token ``start``, which is not part of them.

    Text i is sample i of seed 1. With ``end`` a text is over before that token.

    Raises:
        DivergedError: the model's logits are not finite.
    """
    was_training = model.training
    model.eval()
    try:
        return _draw(model, start, (num_texts, num_tokens), end)
    finally:
        model.train(was_training)


def _draw(model: CharRNN, start: int, shape: tuple[int, int], end: int | None) -> list[Tokens]:
    num_texts, num_tokens = shape
    sampler, params = Sampler(model.shape.vocab_size), SamplingParams(seed=1)
    seeds, streams = np.ones(num_texts, np.uint64), np.arange(num_texts, dtype=np.uint32)
    drawn = np.empty((num_texts, num_tokens), np.int64)
    fed, state = np.full(num_texts, start, np.int64), model.zero_state(num_texts)
    for position in range(num_tokens):
        logits, state = model.step(torch.from_numpy(fed).to(model.head.weight.device), state)  # (B, V)
        positions = np.full(num_texts, position, np.uint64)
        output = sampler.sample(
            logits.float().cpu().numpy(), params, seeds=seeds, positions=positions, streams=streams
        )
        if output.status.any():
            raise DivergedError(f"logits are not finite after {position} sampled symbols")
        fed = output.tokens.astype(np.int64)
        drawn[:, position] = fed
        if end is not None and _all_ended(drawn[:, : position + 1], end):
            return _cut(drawn[:, : position + 1], end)
    return _cut(drawn, end)


def _all_ended(drawn: npt.NDArray[np.int64], end: int) -> bool:
    return bool((drawn == end).any(axis=1).all())


def _cut(drawn: npt.NDArray[np.int64], end: int | None) -> list[Tokens]:
    """Each row up to its first ``end``."""
    return list(drawn) if end is None else [row[: _index(row, end)] for row in drawn]


def _index(row: npt.NDArray[np.int64], end: int) -> int:
    """Where ``end`` stands first; the length of the row if nowhere."""
    found = np.flatnonzero(row == end)
    return int(found[0]) if len(found) else len(row)


def split_documents(tokens: Tokens, end: int) -> list[Tokens]:
    """The documents of a text in which each ends with ``end``, without it."""
    ends = np.flatnonzero(np.asarray(tokens) == end)
    starts = np.concatenate([[0], ends + 1])
    last = [len(tokens)] if starts[-1] < len(tokens) else []
    return [tokens[start:stop] for start, stop in zip(starts, [*ends, *last], strict=False)]

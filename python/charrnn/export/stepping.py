"""Feeding rows of tokens to a model and reading its logits step by step, torch model and graphs alike.

A ``Stepper`` takes tokens (B, T), starts from the zero state and yields logits (B, V) T times, carrying its
own state. Comparing two models is zipping two steppers. Knows nothing of what the logits are compared for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch

from charrnn.export.weights import Array
from charrnn.training.model import CharRNN

Tokens = npt.NDArray[np.int64]
Logits = npt.NDArray[np.floating[Any]]
Stepper = Callable[[Tokens], Iterator[Logits]]

# Logits a torch pass may hold at once, in floats: 64 MiB.
_MAX_LOGITS = 2**24


def torch_stepper(model: CharRNN) -> Stepper:
    """Step a model in evaluation mode, several steps a call to spare torch's overhead.

    Runs on one thread: their number decides the order of sums, and figures shall not depend on the machine.
    """

    def steps(tokens: Tokens) -> Iterator[Logits]:
        batch_size, num_steps = tokens.shape
        window = max(1, _MAX_LOGITS // (batch_size * model.shape.vocab_size))
        state = model.zero_state(batch_size)
        for start in range(0, num_steps, window):
            with _one_thread(), torch.inference_mode():
                logits, state = model(torch.from_numpy(tokens[:, start : start + window]), state)
            yield from logits.numpy().transpose(1, 0, 2)  # (T, B, V)

    return steps


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def graph_stepper(graph: bytes) -> Stepper:
    """Step an ONNX step graph as the engine does: CPU provider, one thread, batches of any size."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    shapes = {entry.name: entry.shape[1] for entry in session.get_inputs() if entry.name != "token"}

    def steps(tokens: Tokens) -> Iterator[Logits]:
        state: Sequence[Array] = [np.zeros((len(tokens), width), np.float32) for width in shapes.values()]
        for column in tokens.T:
            feeds = dict(zip(shapes, state, strict=True)) | {"token": np.ascontiguousarray(column)}
            logits, *state = session.run(None, feeds)
            yield logits

    return steps

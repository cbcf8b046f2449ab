"""Feeding rows of tokens to a model and reading its logits, torch model and graphs alike.

A ``Step`` takes tokens (B,) and a state and gives logits (B, V) and the state after them; None is the zero
state. A ``Stepper`` takes tokens (B, T), starts from the zero state and yields logits (B, V) T times, with
a state of its own. Knows nothing of what the logits are compared for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch

from charrnn.training.model import CharRNN, join_state, split_state

Tokens = npt.NDArray[np.int64]
Logits = npt.NDArray[np.floating[Any]]
State = Sequence[npt.NDArray[np.floating[Any]]]
"""In the order of ``CharRNN.state_names``, each (B, H)."""
Step = Callable[[Tokens, State | None], tuple[Logits, State]]
Stepper = Callable[[Tokens], Iterator[Logits]]

# Logits a torch pass may hold at once, in floats: 64 MiB.
_MAX_LOGITS = 2**24


def torch_step(model: CharRNN) -> Step:
    """One step of a model in evaluation mode, on one thread."""

    def step(token: Tokens, state: State | None) -> tuple[Logits, State]:
        with _one_thread(), torch.inference_mode():
            before = model.zero_state(len(token)) if state is None else _to_torch(state, model.shape.cell)
            logits, after = model.step(torch.from_numpy(token), before)
        return logits.numpy(), [tensor.numpy() for tensor in split_state(after)]

    return step


def _to_torch(state: State, cell: str) -> tuple[torch.Tensor, ...]:
    return join_state([torch.from_numpy(array) for array in state], cell)


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


def graph_step(graph: bytes) -> Step:
    """One step of an ONNX step graph as the engine runs it: CPU provider, one thread, batches of any size."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    widths = {entry.name: entry.shape[1] for entry in session.get_inputs() if entry.name != "token"}

    def step(token: Tokens, state: State | None) -> tuple[Logits, State]:
        if state is None:
            state = [np.zeros((len(token), width), np.float32) for width in widths.values()]
        logits, *after = session.run(None, dict(zip(widths, state, strict=True)) | {"token": token})
        return logits, after

    return step


def carrying(step: Step, end_token: int | None = None) -> Stepper:
    """Steps in a row, each from the state that the one before left, but ``end_token`` from the zero state."""

    def steps(tokens: Tokens) -> Iterator[Logits]:
        state: State | None = None
        for column in tokens.T:
            if state is not None and end_token is not None:
                state = [np.where((column == end_token)[:, None], np.float32(0), array) for array in state]
            logits, state = step(np.ascontiguousarray(column), state)
            yield logits

    return steps

"""Token ids cut into the windows that a model reads: one text in streams side by side.

Knows arrays of token ids, not text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from charrnn.training.splits import Tokens


@dataclass(frozen=True)
class Window:
    """What one step learns from: inputs and targets, each ``(B, T)`` int64.

    ``num_tokens`` of the targets are symbols; the others are padding, -100. Before a window that ``is_first``
    the state is zero, otherwise it is that after the window before.
    """

    inputs: Tensor
    targets: Tensor
    is_first: bool
    num_tokens: int


class Windows:
    """A text cut into ``batch_size`` contiguous streams, and those into windows of at most ``bptt``.

    Window i of a stream goes on where window i - 1 ended, so a recurrent state can be carried. All symbols
    but the last few (fewer than ``batch_size``) are predicted once an epoch; windows are of nearly equal
    length rather than full with a short rest, which would weigh its few symbols as much as a full one.
    """

    def __init__(self, tokens: Tokens, batch_size: int, bptt: int) -> None:
        self.length = (len(tokens) - 1) // batch_size
        size = batch_size * self.length
        self._inputs = tokens[:size].reshape(batch_size, self.length)  # (B, L)
        self._targets = tokens[1 : size + 1].reshape(batch_size, self.length)  # (B, L)
        self._count = -(-self.length // bptt)

    def __len__(self) -> int:
        """Windows in an epoch."""
        return self._count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of a window, each ``(B, T)`` int64."""
        start, end = index * self.length // self._count, (index + 1) * self.length // self._count
        return as_tensor(self._inputs[:, start:end]), as_tensor(self._targets[:, start:end])

    def window(self, epoch: int, index: int) -> Window:
        """A window of an epoch, all of which are alike."""
        inputs, targets = self[index]
        return Window(inputs, targets, index == 0, targets.numel())


def as_tensor(tokens: npt.NDArray[np.integer[Any]]) -> Tensor:
    """A copy as int64."""
    return torch.from_numpy(np.ascontiguousarray(tokens, np.int64))

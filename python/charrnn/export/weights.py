"""The weights of a trained model as numpy arrays, checked: every one there, of its shape, finite.

Knows torch's names and gate order, and nothing of graphs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from charrnn.errors import CheckpointError
from charrnn.training.forecast import NUM_GATES
from charrnn.training.model import CharRNN

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LayerWeights:
    """One layer as torch stores it; ``G`` gates of ``H`` rows each, ``I`` inputs."""

    w_ih: Array  # (G*H, I)
    w_hh: Array  # (G*H, H)
    b_ih: Array  # (G*H,)
    b_hh: Array  # (G*H,)


@dataclass(frozen=True)
class StepWeights:
    """All weights of one model. ``embedding`` is (V, E), or None where tokens enter as 1-of-V."""

    cell: str
    layers: tuple[LayerWeights, ...]
    embedding: Array | None
    head_weight: Array  # (V, H)
    head_bias: Array  # (V,)

    @property
    def hidden_size(self) -> int:
        """H."""
        return int(self.head_weight.shape[1])

    @property
    def vocab_size(self) -> int:
        """V."""
        return int(self.head_weight.shape[0])

    @property
    def state_names(self) -> tuple[str, ...]:
        """``h0, c0, h1, c1, ...`` for LSTM, ``h0, h1, ...`` for the others."""
        kinds = ("h", "c") if self.cell == "lstm" else ("h",)
        return tuple(f"{kind}{layer}" for layer in range(len(self.layers)) for kind in kinds)

    @classmethod
    def from_model(cls, model: CharRNN) -> StepWeights:
        """The weights of a model; see ``from_state_dict``."""
        return cls.from_state_dict(model.state_dict(), model.shape.cell, model.shape.num_layers)

    @classmethod
    def from_state_dict(cls, tensors: Mapping[str, torch.Tensor], cell: str, num_layers: int) -> StepWeights:
        """Take the weights out of a ``CharRNN.state_dict()``.

        Raises:
            CheckpointError: names a tensor that is missing, left over, of a wrong shape or not finite.
        """
        arrays = {name: _array(name, tensor) for name, tensor in tensors.items()}
        shapes = _expected_shapes(arrays, cell, num_layers)
        for name, shape in shapes.items():
            _check(name, arrays.get(name), shape)
        if extra := sorted(arrays.keys() - shapes.keys()):
            raise CheckpointError(f"weight {extra[0]} has no place in a {num_layers}-layer {cell} step graph")
        return cls(
            cell=cell,
            layers=tuple(_layer(arrays, index) for index in range(num_layers)),
            embedding=arrays.get("embedding.weight"),
            head_weight=arrays["head.weight"],
            head_bias=arrays["head.bias"],
        )


def _array(name: str, tensor: torch.Tensor) -> Array:
    array = np.array(tensor.detach().cpu().float().numpy())  # float(): numpy has no bfloat16
    if bad := np.argwhere(~np.isfinite(array)).tolist():
        raise CheckpointError(
            f"weight {name} is not finite in {len(bad)} of {array.size} places, first at {bad[0]}; "
            "export a checkpoint from before training went wrong"
        )
    return array


def _expected_shapes(arrays: dict[str, Array], cell: str, num_layers: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of every tensor; V and H are read from the head, E from the embedding."""
    head = arrays.get("head.weight")
    if head is None or head.ndim != 2:
        raise CheckpointError("weight head.weight is missing or not a matrix")
    vocab_size, hidden_size = head.shape
    shapes: dict[str, tuple[int, ...]] = {
        "head.weight": (vocab_size, hidden_size),
        "head.bias": (vocab_size,),
    }
    inputs = vocab_size
    if (embedding := arrays.get("embedding.weight")) is not None:
        inputs = embedding.shape[-1]
        shapes["embedding.weight"] = (vocab_size, inputs)
    rows = NUM_GATES[cell] * hidden_size
    for layer in range(num_layers):
        shapes[f"rnn.weight_ih_l{layer}"] = (rows, inputs if layer == 0 else hidden_size)
        shapes[f"rnn.weight_hh_l{layer}"] = (rows, hidden_size)
        shapes[f"rnn.bias_ih_l{layer}"] = shapes[f"rnn.bias_hh_l{layer}"] = (rows,)
    return shapes


def _check(name: str, array: Array | None, shape: tuple[int, ...]) -> None:
    if array is None:
        raise CheckpointError(f"weight {name} is missing")
    if array.shape != shape:
        raise CheckpointError(f"weight {name} has shape {array.shape}, expected {shape}")


def _layer(arrays: dict[str, Array], index: int) -> LayerWeights:
    return LayerWeights(
        w_ih=arrays[f"rnn.weight_ih_l{index}"],
        w_hh=arrays[f"rnn.weight_hh_l{index}"],
        b_ih=arrays[f"rnn.bias_ih_l{index}"],
        b_hh=arrays[f"rnn.bias_hh_l{index}"],
    )

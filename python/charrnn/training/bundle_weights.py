"""The weights of an exported model, mapped back from the constants of its float32 step graph.

A graph computes what the trained model computes, but holds it in another form: layer 0's embedding, input
weights and bias are one table with a row a symbol, and the two biases of a layer are one where only their sum
counts. What comes back computes the same up to rounding; it is not the same tensors. Constants have the
names of ``charrnn.export.graph``. Knows nothing of how a model is trained with them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from charrnn.bundle import Bundle
from charrnn.errors import ConfigError

Array = npt.NDArray[np.float64]
Constants = Mapping[str, Array]
# Products of a layer in torch's order of gates, each with whether input and hidden part stand apart in it.
_PRODUCTS = {
    "lstm": (("i", False), ("f", False), ("g", False), ("o", False)),
    "gru": (("rz", False), ("n", True)),
    "rnn": (("a", False),),
}
_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def read_bundle_weights(bundle: Bundle) -> dict[str, Tensor]:
    """Weights by torch's names, as a ``CharRNN`` of the bundle's shape has them.

    Raises:
        ConfigError: the bundle has no float32 graph, or one that charrnn did not write.
    """
    if "fp32" not in bundle.precisions:
        held = ", ".join(bundle.precisions)
        raise ConfigError(
            f"bundle {bundle.path} holds {held}, and weights are read from fp32: "
            "export it with --precision fp32, or begin from its run"
        )
    graph = onnx.load(bundle.precisions["fp32"].path).graph
    constants = {each.name: numpy_helper.to_array(each).astype(np.float64) for each in graph.initializer}
    try:
        arrays = _weights(bundle, constants)
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"the fp32 graph of bundle {bundle.path} is none of charrnn's: {error!r}; begin from a run"
        ) from error
    return {name: torch.from_numpy(array.astype(np.float32).copy()) for name, array in arrays.items()}


def _weights(bundle: Bundle, constants: Constants) -> dict[str, Array]:
    arrays = {"head.weight": constants["logits.weight"].T, "head.bias": constants["logits.bias"]}
    arrays |= _first_layer(constants, bundle.cell, bundle.embedding_dim)
    for layer in range(1, bundle.num_layers):
        products = [_product(constants, layer, *of) for of in _PRODUCTS[bundle.cell]]
        for name, parts in zip(
            ("weight_ih", "weight_hh", "bias_ih", "bias_hh"), zip(*products, strict=True), strict=True
        ):
            arrays[f"rnn.{name}_l{layer}"] = np.concatenate(parts)
    return arrays


def _first_layer(constants: Constants, cell: str, embedding_dim: int) -> dict[str, Array]:
    """Layer 0. What all symbols share of the table becomes the bias: a new symbol then has it too."""
    products = [f"l0.{name}" for name, _ in _PRODUCTS[cell]]
    table = np.concatenate([constants[f"{at}.x.table"] for at in products], axis=1)  # (V, G*H)
    hidden = [constants[f"{at}.h.weight"].T for at in products]
    # Where the hidden part has no bias of its own, it is in the table.
    biases = [constants.get(f"{at}.h.bias", np.zeros(len(w))) for at, w in zip(products, hidden, strict=True)]
    bias = table.mean(axis=0)
    arrays = {
        "rnn.weight_hh_l0": np.concatenate(hidden),
        "rnn.bias_ih_l0": bias,
        "rnn.bias_hh_l0": np.concatenate(biases),
    }
    if not embedding_dim:
        return arrays | {"rnn.weight_ih_l0": (table - bias).T}
    embedding, weight = _factors(table - bias, embedding_dim)
    return arrays | {"embedding.weight": embedding, "rnn.weight_ih_l0": weight.T}


def _factors(table: Array, rank: int) -> tuple[Array, Array]:
    """``table`` ``(V, N)`` of at most this rank as a product ``(V, rank) @ (rank, N)``.

    The first factor has columns of unit mean square, as a fresh embedding has. There are many such products;
    the one that the model was trained with cannot be told from the table.
    """
    left, sizes, right = np.linalg.svd(table, full_matrices=False)
    num_rows, found = len(table), min(rank, len(sizes))
    embedding = np.eye(num_rows, rank)  # beyond what is found, so that they can still learn
    embedding[:, :found] = left[:, :found] * np.sqrt(num_rows)
    weight = np.zeros((rank, table.shape[1]))
    weight[:found] = sizes[:found, None] * right[:found] / np.sqrt(num_rows)
    return embedding, weight


def _product(
    constants: Constants, layer: int, name: str, is_apart: bool
) -> tuple[Array, Array, Array, Array]:
    """Rows of a layer above the first: W_ih, W_hh, b_ih, b_hh."""
    at = f"l{layer}.{name}"
    if is_apart:
        inner, hidden = constants[f"{at}.x.weight"].T, constants[f"{at}.h.weight"].T
        return inner, hidden, constants[f"{at}.x.bias"], constants[f"{at}.h.bias"]
    inner, hidden = np.split(constants[f"{at}.weight"].T, 2, axis=1)
    bias = constants[f"{at}.bias"]
    return inner, hidden, bias, np.zeros_like(bias)

"""How other frameworks name, shape and order the weights of recurrent layers, made into torch's.

A layout knows names and the order of gates; torch's order is i, f, g, o for LSTM and r, z, n for GRU. Knows
nothing of files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from charrnn.errors import DataError
from charrnn.export.foreign.named import NamedArrays, take_ends
from charrnn.export.weights import Array, LayerWeights, StepWeights
from charrnn.training.forecast import NUM_GATES

_CELLS = {num_gates: cell for cell, num_gates in NUM_GATES.items()}


def place(arrays: Mapping[str, Array], layout: str, forget_bias: float) -> StepWeights:
    """The weights of a model of ``layout``, one of ``LAYOUTS``; ``forget_bias`` is of layout ``tf``.

    Raises:
        DataError: an array is missing, left over or of the wrong shape; the message has its name.
    """
    if layout not in LAYOUTS:
        raise DataError(f"layout {layout!r} is not one of {', '.join(LAYOUTS)}")
    named = NamedArrays(_with_keras_names(arrays) if layout == "keras" else arrays)
    weights = _tf(named, forget_bias) if layout == "tf" else _WITHOUT_OPTIONS[layout](named)
    named.finish()
    return weights


def _torch(named: NamedArrays) -> StepWeights:
    """``rnn.weight_ih_l0`` and so on, as nn.LSTM, nn.GRU or nn.RNN has them; an embedding; a linear layer."""
    found = [match for name in named.names if (match := re.fullmatch(r"(.*)weight_hh_l\d+", name))]
    _require(found, "weight_hh_l0")
    prefix, num_layers = found[0][1], len(found)
    rows, hidden_size = _matrix(named, f"{prefix}weight_hh_l0")
    cell = _cell(rows, hidden_size, f"{prefix}weight_hh_l0")
    layer_names = re.compile(re.escape(prefix) + r"(weight|bias)_[ih]h_l\d+")
    others = [name for name in named.names if not layer_names.fullmatch(name)]
    ends = take_ends(named, others, hidden_size, is_input_first=False)
    layers = []
    for layer in range(num_layers):
        num_inputs = hidden_size if layer else ends.num_inputs
        layers.append(
            LayerWeights(
                named.take(f"{prefix}weight_ih_l{layer}", rows, num_inputs),
                named.take(f"{prefix}weight_hh_l{layer}", rows, hidden_size),
                named.take(f"{prefix}bias_ih_l{layer}", rows),
                named.take(f"{prefix}bias_hh_l{layer}", rows),
            )
        )
    return StepWeights(cell, tuple(layers), ends.embedding, ends.head_weight, ends.head_bias)


def _keras(named: NamedArrays) -> StepWeights:
    """``kernel``, ``recurrent_kernel`` and ``bias`` a layer, inputs first: LSTM i, f, c, o, GRU z, r, h.

    A GRU is that of ``reset_after=True``, Keras' default, whose bias is (2, 3H); torch has no other.
    """
    parents = [
        name.removesuffix("recurrent_kernel") for name in named.names if name.endswith("recurrent_kernel")
    ]
    _require(parents, "recurrent_kernel")
    hidden_size, columns = _matrix(named, f"{parents[0]}recurrent_kernel")
    cell = _cell(columns, hidden_size, f"{parents[0]}recurrent_kernel")
    order = {"lstm": (0, 1, 2, 3), "gru": (1, 0, 2), "rnn": (0,)}[cell]
    kinds = ("kernel", "recurrent_kernel", "bias")
    mine = {f"{parent}{kind}" for parent in parents for kind in kinds}
    others = [name for name in named.names if name not in mine]
    ends = take_ends(named, others, hidden_size, is_input_first=True)
    layers = []
    for index, parent in enumerate(parents):
        num_inputs = hidden_size if index else ends.num_inputs
        w_ih = named.take(f"{parent}kernel", num_inputs, columns).T
        w_hh = named.take(f"{parent}recurrent_kernel", hidden_size, columns).T
        both = _keras_biases(named, f"{parent}bias", cell, columns)
        layers.append(LayerWeights(*(_reordered(array, order) for array in (w_ih, w_hh, *both))))
    return StepWeights(cell, tuple(layers), ends.embedding, ends.head_weight, ends.head_bias)


def _keras_biases(named: NamedArrays, name: str, cell: str, columns: int) -> tuple[Array, Array]:
    if cell == "gru":
        if named.shape(name) == (columns,):
            raise DataError(f"weight {name} is of a GRU with reset_after=False, which torch does not have")
        both = named.take(name, 2, columns)
        return both[0], both[1]
    return named.take(name, columns), np.zeros(columns, np.float32)


def _with_keras_names(arrays: Mapping[str, Array]) -> Mapping[str, Array]:
    """``np.savez(F, *model.get_weights())`` has numbers for names, in the order of the layers."""
    if not all(re.fullmatch(r"arr_\d+", name) for name in arrays):
        return arrays
    kinds = ("kernel", "recurrent_kernel", "bias")
    layers = [f"layer_{i // 3}/{kinds[i % 3]}" for i in range((len(arrays) - 2) // 3 * 3)]
    embedding = ["embedding"] if (len(arrays) - 2) % 3 == 1 else []
    names = [*embedding, *layers, "dense/kernel", "dense/bias"]
    if len(names) != len(arrays):
        raise DataError(f"there are {len(arrays)} arrays without names, which no stack of Keras layers has")
    return {name: arrays[f"arr_{number}"] for number, name in enumerate(names)}


def _tf(named: NamedArrays, forget_bias: float) -> StepWeights:
    """BasicLSTMCell: one matrix (I+H, 4H) a layer, gates i, j, f, o; the forget bias is added at run time."""
    kernels = [name for name in named.names if re.search(r"cell.*/(kernel|weights)$", name)]
    _require(kernels, "cell_0/kernel or cell_0/weights")
    biases = [re.sub(r"kernel$", "bias", re.sub(r"weights$", "biases", name)) for name in kernels]
    hidden_size = _matrix(named, kernels[0])[1] // 4
    others = [name for name in named.names if name not in {*kernels, *biases}]
    ends = take_ends(named, others, hidden_size, is_input_first=True)
    layers = []
    for index, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        num_inputs = hidden_size if index else ends.num_inputs
        joined = named.take(kernel, num_inputs + hidden_size, 4 * hidden_size)
        w_ih, w_hh, b_ih = (
            _reordered(array, (0, 2, 1, 3))
            for array in (joined[:num_inputs].T, joined[num_inputs:].T, named.take(bias, 4 * hidden_size))
        )
        b_ih[hidden_size : 2 * hidden_size] += np.float32(forget_bias)
        layers.append(LayerWeights(w_ih, w_hh, b_ih, np.zeros_like(b_ih)))
    return StepWeights("lstm", tuple(layers), ends.embedding, ends.head_weight, ends.head_bias)


def _char_rnn(named: NamedArrays) -> StepWeights:
    """Karpathy's char-rnn, layers named as its LSTM.lua annotates them: ``i2h_1.weight``..., ``decoder``.

    Gates i, f, o, g; layers count from 1; symbols enter as 1-of-k.
    """
    found = [match[0] for name in named.names if (match := re.fullmatch(r"h2h_\d+\.weight", name))]
    _require(found, "h2h_1.weight")
    hidden_size = _matrix(named, "h2h_1.weight")[1]
    others = [name for name in named.names if not re.fullmatch(r"[ih]2h_\d+\.(weight|bias)", name)]
    ends = take_ends(named, others, hidden_size, is_input_first=False)
    layers = []
    for layer in range(1, len(found) + 1):
        num_inputs = hidden_size if layer > 1 else ends.num_inputs
        arrays = (
            named.take(f"i2h_{layer}.weight", 4 * hidden_size, num_inputs),
            named.take(f"h2h_{layer}.weight", 4 * hidden_size, hidden_size),
            named.take(f"i2h_{layer}.bias", 4 * hidden_size),
            named.take(f"h2h_{layer}.bias", 4 * hidden_size),
        )
        layers.append(LayerWeights(*(_reordered(array, (0, 1, 3, 2)) for array in arrays)))
    return StepWeights("lstm", tuple(layers), ends.embedding, ends.head_weight, ends.head_bias)


def _require(found: Sequence[object], example: str) -> None:
    if not found:
        raise DataError(f"there is no weight named like {example}; choose another --layout")


def _matrix(named: NamedArrays, name: str) -> tuple[int, int]:
    shape = named.shape(name)
    if len(shape) != 2:
        raise DataError(f"weight {name} has shape {shape}, expected a matrix")
    return shape[0], shape[1]


def _cell(size: int, hidden_size: int, name: str) -> str:
    """Told by how many gates of ``hidden_size`` units there are."""
    if size % hidden_size or size // hidden_size not in _CELLS:
        raise DataError(
            f"weight {name} has {size} rows of gates for {hidden_size} units, expected 1, 3 or 4 a unit"
        )
    return _CELLS[size // hidden_size]


def _reordered(array: Array, order: Sequence[int]) -> Array:
    """Blocks of rows, one a gate: (G*H, ...), in another order."""
    blocks = array.reshape(len(order), -1, *array.shape[1:])
    return np.ascontiguousarray(blocks[list(order)]).reshape(array.shape)


_WITHOUT_OPTIONS: Mapping[str, Callable[[NamedArrays], StepWeights]] = {
    "torch": _torch,
    "keras": _keras,
    "char-rnn": _char_rnn,
}
LAYOUTS = (*_WITHOUT_OPTIONS, "tf")

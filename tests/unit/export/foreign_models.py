"""Random weights as other frameworks name them, and those frameworks' own equations in numpy, written out.

Sources: Keras' LSTMCell and GRUCell (reset_after=True), TensorFlow's BasicLSTMCell, char-rnn's LSTM.lua.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from charrnn.export.weights import Array

V, E, H, FORGET_BIAS = 7, 5, 4, 1.0
Arrays = dict[str, Array]
Vector = npt.NDArray[np.float64]


def weights(*shape: int) -> Array:
    """Random, the same for the same shape only by accident: every call goes on."""
    return np.float32(_RNG.normal(0, 0.6, shape))


_RNG = np.random.default_rng(5)


def sigmoid(x: Vector) -> Vector:
    return 1 / (1 + np.exp(-x))


def keras(cell: str, num_layers: int, has_embedding: bool) -> Arrays:
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[cell] * H
    arrays = {"embedding/embeddings:0": weights(V, E)} if has_embedding else {}
    for layer in range(num_layers):
        name = f"{cell}_{9 + layer}/cell"  # 10 stands after 9
        arrays[f"{name}/kernel:0"] = weights(H if layer else E if has_embedding else V, gates)
        arrays[f"{name}/recurrent_kernel:0"] = weights(H, gates)
        arrays[f"{name}/bias:0"] = weights(2, gates) if cell == "gru" else weights(gates)
    return arrays | {"dense/kernel:0": weights(H, V), "dense/bias:0": weights(V)}


def keras_logits(arrays: Arrays, cell: str, num_layers: int, tokens: list[int]) -> Array:
    """(T, V)"""

    def step(layer: int, x: Vector, state: list[Vector]) -> list[Vector]:
        kernel, recurrent, bias = (
            np.float64(arrays[f"{cell}_{9 + layer}/cell/{kind}:0"])
            for kind in ("kernel", "recurrent_kernel", "bias")
        )
        h, c = state
        if cell == "rnn":
            return [np.tanh(x @ kernel + bias + h @ recurrent), c]
        if cell == "lstm":
            i, f, g, o = np.split(x @ kernel + h @ recurrent + bias, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            return [sigmoid(o) * np.tanh(c), c]
        xz, xr, xh = np.split(x @ kernel + bias[0], 3)
        hz, hr, hh = np.split(h @ recurrent + bias[1], 3)
        z, r = sigmoid(xz + hz), sigmoid(xr + hr)
        return [z * h + (1 - z) * np.tanh(xh + r * hh), c]

    inputs = arrays.get("embedding/embeddings:0", np.eye(V, dtype=np.float32))
    return _run(step, num_layers, inputs[tokens], arrays["dense/kernel:0"], arrays["dense/bias:0"])


def tf(num_layers: int, has_embedding: bool, old_names: bool) -> Arrays:
    leaf, bias = ("weights", "biases") if old_names else ("kernel", "bias")
    arrays = {"embedding": weights(V, E)} if has_embedding else {}
    for layer in range(num_layers):
        name = f"rnnlm/multi_rnn_cell/cell_{layer}/basic_lstm_cell"
        arrays[f"{name}/{leaf}"] = weights((H if layer else E if has_embedding else V) + H, 4 * H)
        arrays[f"{name}/{bias}"] = weights(4 * H)
    ends = {"rnnlm/softmax_w": weights(H, V), "rnnlm/softmax_b": weights(V)}
    return arrays | ends | {"Variable": np.float32(12000)}


def tf_logits(arrays: Arrays, num_layers: int, tokens: list[int], forget_bias: float) -> Array:
    """(T, V)"""

    def step(layer: int, x: Vector, state: list[Vector]) -> list[Vector]:
        kernel, bias = (np.float64(a) for name, a in arrays.items() if f"/cell_{layer}/" in name)
        h, c = state
        i, j, f, o = np.split(np.concatenate([x, h]) @ kernel + bias, 4)
        c = c * sigmoid(f + forget_bias) + sigmoid(i) * np.tanh(j)
        return [np.tanh(c) * sigmoid(o), c]

    inputs = arrays.get("embedding", np.eye(V, dtype=np.float32))
    return _run(step, num_layers, inputs[tokens], arrays["rnnlm/softmax_w"], arrays["rnnlm/softmax_b"])


def char_rnn(num_layers: int) -> Arrays:
    arrays = {}
    for layer in range(1, num_layers + 1):
        arrays[f"i2h_{layer}.weight"] = weights(4 * H, H if layer > 1 else V)
        arrays[f"h2h_{layer}.weight"] = weights(4 * H, H)
        arrays[f"i2h_{layer}.bias"], arrays[f"h2h_{layer}.bias"] = weights(4 * H), weights(4 * H)
    return arrays | {"decoder.weight": weights(V, H), "decoder.bias": weights(V)}


def char_rnn_logits(arrays: Arrays, num_layers: int, tokens: list[int]) -> Array:
    """(T, V)"""

    def step(layer: int, x: Vector, state: list[Vector]) -> list[Vector]:
        i2h, h2h, bi, bh = (
            np.float64(arrays[f"{kind}_{layer + 1}.{leaf}"])
            for leaf in ("weight", "bias")
            for kind in ("i2h", "h2h")
        )
        h, c = state
        in_gate, forget_gate, out_gate, in_transform = np.split(i2h @ x + bi + h2h @ h + bh, 4)
        c = sigmoid(forget_gate) * c + sigmoid(in_gate) * np.tanh(in_transform)
        return [sigmoid(out_gate) * np.tanh(c), c]

    inputs = np.eye(V, dtype=np.float32)[tokens]
    return _run(step, num_layers, inputs, arrays["decoder.weight"].T, arrays["decoder.bias"])


def _run(
    step: Callable[[int, Vector, list[Vector]], list[Vector]],
    num_layers: int,
    inputs: Array,
    head: Array,
    bias: Array,
) -> Array:
    states = [[np.zeros(H), np.zeros(H)] for _ in range(num_layers)]
    rows = []
    for x in np.float64(inputs):
        for layer in range(num_layers):
            states[layer] = step(layer, x, states[layer])
            x = states[layer][0]
        rows.append(x @ np.float64(head) + bias)
    return np.float32(rows)

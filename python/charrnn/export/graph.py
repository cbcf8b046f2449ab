"""The step graph: ``step(token, state) -> (logits, state')`` as an ONNX model, written node by node.

Inputs ``token`` int64 (B,) and the state tensors float32 (B, H); outputs ``logits`` float32 (B, V) and each
state tensor's successor ``<name>_out``. The batch size is free. Layer 0 needs no product with its input:
embedding, input weights and biases are folded into a table with one row a token. No recurrent operator of
ONNX is used: ONNX Runtime's LSTM turns NaN into finite numbers and cannot quantise hidden states at a fixed
scale.

Shapes of the cells were chosen by time on ONNX Runtime's CPU provider (one thread, batches of 1 and 64, 2x128
and 2x512): an LSTM has one product a gate, since splitting one wide product costs more in copies than it
saves; a GRU has one for r and z and two for n, whose hidden part is multiplied by r.

Knows neither torch nor files; whether the numbers are right is parity's business.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from charrnn.errors import ConfigError
from charrnn.export.arithmetic import Arithmetic, GraphBuilder, arithmetic_for
from charrnn.export.weights import Array, LayerWeights, StepWeights

OPSET = 20
# The version of the file format that came with opset 20's contemporaries; every ONNX Runtime since 1.18 reads
# it.
IR_VERSION = 10
# A protobuf message ends at 2 GiB; nodes and names get the last MiB.
MAX_BYTES = 2**31 - 2**20


def build_step_graph(weights: StepWeights, precision: str) -> onnx.ModelProto:
    """The step graph of a model in ``"fp32"`` or ``"int8"``; the same weights give the same bytes."""
    graph = GraphBuilder()
    arithmetic = arithmetic_for(precision, graph)
    below: str | None = None
    for index in range(len(weights.layers)):
        below = _CELLS[weights.cell](_Layer(graph, arithmetic, weights, index, below))
    assert below is not None, "a model has at least one layer"
    arithmetic.linear([below], weights.head_weight.T, weights.head_bias, "logits")
    return _model(graph, weights)


def _model(graph: GraphBuilder, weights: StepWeights) -> onnx.ModelProto:
    def tensor(name: str, width: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", width])

    _check_size(graph)
    names, width = weights.state_names, weights.hidden_size
    inputs = [helper.make_tensor_value_info("token", TensorProto.INT64, ["B"])]
    outputs = [tensor("logits", weights.vocab_size)]
    inputs += [tensor(name, width) for name in names]
    outputs += [tensor(f"{name}_out", width) for name in names]
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    body = helper.make_graph(graph.nodes, "step", inputs, outputs, graph.initializers)
    model = helper.make_model(body, opset_imports=opsets, ir_version=IR_VERSION, producer_name="charrnn")
    onnx.checker.check_model(model)
    return model


def _check_size(graph: GraphBuilder) -> None:
    num_bytes = sum(len(tensor.raw_data) for tensor in graph.initializers)
    if num_bytes > MAX_BYTES:
        raise ConfigError(
            f"the step graph would hold {num_bytes:,} bytes, an ONNX file at most {MAX_BYTES:,}; "
            "train with fewer hidden units, layers or symbols"
        )


class _Layer:
    """One layer being written: where its nodes go, its weights, and the tensor that enters from below."""

    def __init__(
        self, graph: GraphBuilder, arithmetic: Arithmetic, weights: StepWeights, index: int, below: str | None
    ) -> None:
        self.graph = graph
        self.arithmetic = arithmetic
        self.below = below
        self.index = index
        self.hidden_size = weights.hidden_size
        self.weights: LayerWeights = weights.layers[index]
        self.table = _input_table(weights) if index == 0 else None  # (V, G*H)

    def rows(self, first_gate: int, num_gates: int = 1) -> slice:
        """The rows of some consecutive gates."""
        return slice(first_gate * self.hidden_size, (first_gate + num_gates) * self.hidden_size)

    def op(self, kind: str, inputs: list[str], output: str) -> str:
        return self.graph.op(kind, inputs, f"l{self.index}.{output}")

    def state(self, kind: str) -> str:
        return f"{kind}{self.index}"

    def looked_up(self, rows: slice, bias: Array | float, output: str) -> str:
        """Layer 0's input part: a row of the table a token, ``bias`` added beforehand. (B, rows)."""
        assert self.table is not None
        table = (self.table[:, rows] + bias).astype(np.float32)
        return self.op(
            "Gather", [self.graph.constant(f"l{self.index}.{output}.table", table), "token"], output
        )

    def input_part(self, rows: slice, output: str) -> str:
        """``W_ih x + b_ih`` for some gates. (B, rows)."""
        if self.below is None:
            return self.looked_up(rows, 0.0, output)
        weight, bias = self.weights.w_ih[rows].T, self.weights.b_ih[rows]
        return self.arithmetic.linear([self.below], weight, bias, f"l{self.index}.{output}")

    def hidden_part(self, rows: slice, output: str) -> str:
        """``W_hh h + b_hh`` for some gates. (B, rows)."""
        weight, bias = self.weights.w_hh[rows].T, self.weights.b_hh[rows]
        return self.arithmetic.linear([self.state("h")], weight, bias, f"l{self.index}.{output}")

    def both_parts(self, rows: slice, output: str) -> str:
        """``W_ih x + b_ih + W_hh h + b_hh`` for some gates, as one product over [x, h]. (B, rows)."""
        of, name = self.weights, f"l{self.index}.{output}"
        if self.below is None:
            looked_up = self.looked_up(rows, of.b_hh[rows], f"{output}.x")
            hidden = self.arithmetic.linear([self.state("h")], of.w_hh[rows].T, None, f"{name}.h")
            return self.op("Add", [looked_up, hidden], output)
        weight = np.concatenate([of.w_ih[rows], of.w_hh[rows]], axis=1).T  # (I + H, rows)
        bias = of.b_ih[rows] + of.b_hh[rows]
        return self.arithmetic.linear([self.below, self.state("h")], weight, bias, name)


def _input_table(weights: StepWeights) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """``Emb W_ih^T + b_ih`` of layer 0, (V, G*H), in double precision until the last bias is in."""
    first = weights.layers[0]
    w_ih = first.w_ih.T.astype(np.float64)  # (E or V, G*H)
    product = w_ih if weights.embedding is None else weights.embedding.astype(np.float64) @ w_ih
    return product + first.b_ih


def _lstm(layer: _Layer) -> str:
    """``c' = f c + i g``, ``h' = o tanh(c')``."""
    i, f, g, o = (layer.both_parts(layer.rows(gate), name) for gate, name in enumerate("ifgo"))
    kept = layer.op("Mul", [layer.op("Sigmoid", [f], "f.open"), layer.state("c")], "kept")
    added = layer.op("Mul", [layer.op("Sigmoid", [i], "i.open"), layer.op("Tanh", [g], "g.value")], "added")
    c = layer.graph.op("Add", [kept, added], f"{layer.state('c')}_out")
    opened = layer.op("Sigmoid", [o], "o.open")
    return layer.graph.op("Mul", [opened, layer.op("Tanh", [c], "c.tanh")], f"{layer.state('h')}_out")


def _gru(layer: _Layer) -> str:
    """``n = tanh(W_in x + b_in + r (W_hn h + b_hn))``, ``h' = n + z (h - n)``."""
    h = layer.state("h")
    gates = layer.op("Sigmoid", [layer.both_parts(layer.rows(0, 2), "rz")], "rz.open")  # (B, 2H)
    r, z = layer.graph.split(gates, [f"l{layer.index}.r", f"l{layer.index}.z"], layer.hidden_size)
    let_in = layer.op("Mul", [r, layer.hidden_part(layer.rows(2), "n.h")], "n.let_in")
    n = layer.op("Tanh", [layer.op("Add", [layer.input_part(layer.rows(2), "n.x"), let_in], "n")], "n.value")
    kept = layer.op("Mul", [z, layer.op("Sub", [h, n], "h_minus_n")], "kept")
    return layer.graph.op("Add", [n, kept], f"{h}_out")


def _rnn(layer: _Layer) -> str:
    """``h' = tanh(W_ih x + b_ih + W_hh h + b_hh)``."""
    return layer.graph.op("Tanh", [layer.both_parts(layer.rows(0), "a")], f"{layer.state('h')}_out")


_CELLS = {"lstm": _lstm, "gru": _gru, "rnn": _rnn}

"""The step graph against torch, for every cell, depth and kind of input."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from charrnn.export import parity
from charrnn.export.graph import build_step_graph
from charrnn.export.stepping import carrying, graph_step, torch_step, torch_stepper
from charrnn.export.weights import StepWeights
from tests.unit.export.small_models import VOCAB_SIZE, make_model

CELLS = pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
PRECISIONS = pytest.mark.parametrize("precision", ["fp32", "int8"])


def graph_bytes(model, precision="fp32"):
    return build_step_graph(StepWeights.from_model(model), precision).SerializeToString()


@CELLS
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("embedding_dim", [0, 5])
def test_fp32_is_the_torch_model(cell: str, num_layers: int, embedding_dim: int) -> None:
    model = make_model(cell, num_layers, embedding_dim)
    differences = parity.step_differences(torch_step(model), graph_step(graph_bytes(model)), VOCAB_SIZE)
    assert differences.max() < 1e-5
    assert differences.max() > 0  # two arithmetics, not one compared with itself


def test_a_chaotic_model_passes_as_well() -> None:
    """Large weights: left to itself, the last bit of a sum grows beyond the limit, in torch too."""
    model = make_model("rnn", 3, 5, spread=0.8)
    graph = graph_step(graph_bytes(model))
    tokens = np.random.default_rng(0).integers(0, VOCAB_SIZE, (64, parity.NUM_STEPS))
    apart = zip(torch_stepper(model)(tokens), carrying(graph)(tokens), strict=True)
    assert max(np.abs(a - b).max() for a, b in apart) > 1e-4
    assert parity.step_differences(torch_step(model), graph, VOCAB_SIZE).max() < 1e-5


@CELLS
@PRECISIONS
def test_names_and_shapes_are_the_engines(cell: str, precision: str) -> None:
    graph = onnx.load_from_string(graph_bytes(make_model(cell, 2), precision)).graph
    state = ["h0", "c0", "h1", "c1"] if cell == "lstm" else ["h0", "h1"]
    assert [entry.name for entry in graph.input] == ["token", *state]
    assert [entry.name for entry in graph.output] == ["logits", *(f"{name}_out" for name in state)]
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.INT64
    for entry in [*graph.input, *graph.output]:
        batch, *width = entry.type.tensor_type.shape.dim
        assert batch.dim_param == "B"
        expected = {"token": [], "logits": [VOCAB_SIZE]}.get(entry.name, [8])
        assert [dim.dim_value for dim in width] == expected


@CELLS
@PRECISIONS
def test_no_recurrent_operator_and_no_external_data(cell: str, precision: str) -> None:
    graph = onnx.load_from_string(graph_bytes(make_model(cell, 2), precision)).graph
    allowed = {"Gather", "MatMul", "Gemm", "Concat", "Split", "Sigmoid", "Tanh", "Mul", "Add", "Sub"}
    if precision == "int8":
        allowed |= {"QuantizeLinear", "MatMulIntegerToFloat"}
    assert {node.op_type for node in graph.node} <= allowed
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in graph.initializer)


@PRECISIONS
def test_same_weights_same_bytes(precision: str) -> None:
    assert graph_bytes(make_model("lstm", 2), precision) == graph_bytes(make_model("lstm", 2), precision)


@PRECISIONS
@pytest.mark.parametrize("hidden_size", [7, 33])  # no multiple of any vector width: rows start at odd places
@CELLS
def test_a_row_is_the_same_alone_and_among_others(cell: str, hidden_size: int, precision: str) -> None:
    model = make_model(cell, 2, 0, hidden_size)
    stepper = carrying(graph_step(graph_bytes(model, precision)))
    assert parity.dependent_row(stepper, VOCAB_SIZE) is None
    rng = np.random.default_rng(3)
    tokens = rng.integers(0, VOCAB_SIZE, (64, 30))
    alone = [logits[0].tobytes() for logits in stepper(tokens[5:6])]
    for place in (0, 1, 31, 63):
        among = rng.integers(0, VOCAB_SIZE, (64, 30))
        among[place] = tokens[5]
        assert [logits[place].tobytes() for logits in stepper(among)] == alone


@CELLS
def test_int8_steps_like_integers_written_out(cell: str) -> None:
    """One layer against a reference in which every quantised number is an integer of numpy."""
    model = make_model(cell, 1, 0, 6)
    weights = StepWeights.from_model(model)
    tokens = np.random.default_rng(4).integers(0, VOCAB_SIZE, (3, 40))
    stepped = carrying(graph_step(graph_bytes(model, "int8")))(tokens)
    for got, expected in zip(stepped, _int8_steps(weights, tokens), strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-4)


def _int8_steps(weights: StepWeights, tokens):
    """Slow and obvious: quantise h, multiply integers, scale, add, apply the cell's equations."""
    layer, size = weights.layers[0], weights.hidden_size
    h = np.zeros((len(tokens), size))
    c = np.zeros_like(h)

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def times(h, weight):  # weight (N, K), a scale for each of its rows
        product = np.empty((len(h), len(weight)))
        levels = np.rint(np.float32(h) / np.float32(1 / 127)).astype(int)
        for n, row in enumerate(weight):
            scale = max(
                np.float32(np.maximum(sign * row, 0).reshape(-1, 2).sum(axis=1, dtype=np.float64).max() / 127)
                for sign in (1, -1)
            )
            product[:, n] = levels @ np.rint(row / scale).astype(int) * float(scale) / 127
        return product

    for token in tokens.T:
        x = layer.w_ih[:, token].T + layer.b_ih
        y = times(h, layer.w_hh) + layer.b_hh
        if weights.cell == "lstm":
            i, f, g, o = np.split(x + y, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        elif weights.cell == "gru":
            (xr, xz, xn), (hr, hz, hn) = np.split(x, 3, axis=1), np.split(y, 3, axis=1)
            z = sigmoid(xz + hz)
            h = (1 - z) * np.tanh(xn + sigmoid(xr + hr) * hn) + z * h
        else:
            h = np.tanh(x + y)
        yield times(h, weights.head_weight) + weights.head_bias


def test_activations_have_one_fixed_scale() -> None:
    model = make_model("gru", 2)
    graph = onnx.load_from_string(graph_bytes(model, "int8")).graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    scales = {node.input[1] for node in graph.node if node.op_type == "QuantizeLinear"}
    zero_points = {node.input[2] for node in graph.node if node.op_type == "QuantizeLinear"}
    assert [constants[name] for name in scales] == [np.float32(1 / 127)]
    assert [constants[name] for name in zero_points] == [128]
    products = [node for node in graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert {(node.input[2], node.input[4]) for node in products} == {(*scales, *zero_points)}
    assert all(constants[node.input[1]].dtype == np.int8 for node in products)


def test_each_hidden_state_is_quantised_once() -> None:
    graph = onnx.load_from_string(graph_bytes(make_model("gru", 2), "int8")).graph
    quantised = [node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"]
    assert sorted(quantised) == ["h0", "h0_out", "h1", "h1_out"]


@pytest.mark.parametrize(
    ("cell", "gates"), [("lstm", (0, 1)), ("lstm", (2, 3)), ("gru", (0, 1)), ("gru", (1, 2))]
)
def test_swapped_gates_are_seen(cell: str, gates: tuple[int, int], few_steps: None) -> None:
    model, swapped = make_model(cell), make_model(cell)
    with torch.no_grad():
        for name, weight in swapped.rnn.named_parameters():
            blocks = list(weight.reshape(-1, 8, *weight.shape[1:]))
            first, second = gates
            blocks[first], blocks[second] = blocks[second].clone(), blocks[first].clone()
            weight.copy_(torch.cat(blocks))
            assert name.startswith(("weight", "bias"))
    differences = parity.step_differences(torch_step(model), graph_step(graph_bytes(swapped)), VOCAB_SIZE)
    assert differences.max() > 0.1


def test_a_graph_beyond_the_protobuf_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from charrnn.errors import ConfigError
    from charrnn.export import graph

    monkeypatch.setattr(graph, "MAX_BYTES", 100)
    with pytest.raises(ConfigError, match="at most 100"):
        build_step_graph(StepWeights.from_model(make_model()), "fp32")

"""Quantisation against slow references, and the rule that keeps old CPUs exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from charrnn.export.quantize import dequantize_columns, quantize_activations, quantize_columns

MATRICES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 9), st.integers(1, 4)),
    elements=st.one_of(
        st.floats(-4, 4, width=32),
        st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**100), max_value=2.0**100),
    ),
)


def vpmaddubsw(activations: list[int], weights: list[int]) -> int:
    """What an x86 CPU without VNNI adds up: neighbours in a saturating 16-bit sum, then those in 32 bits."""
    total = 0
    for k in range(0, len(weights), 2):
        pair = sum(a * w for a, w in zip(activations[k : k + 2], weights[k : k + 2], strict=True))
        total += max(-(2**15), min(2**15 - 1, pair))
    return total


@settings(deadline=None)
@given(MATRICES)
def test_weights_come_back_within_half_a_scale(weight: np.ndarray) -> None:
    quantized, scale = quantize_columns(weight)
    assert quantized.dtype == np.int8
    assert scale.dtype == np.float32
    assert (scale > 0).all()
    error = np.abs(dequantize_columns(quantized, scale).astype(np.float64) - weight)
    tiny = np.finfo(np.float32).tiny * 128  # columns as small as this become zero
    assert (error <= np.maximum(scale.astype(np.float64) * 0.5001, tiny)).all()


@settings(deadline=None)
@given(MATRICES)
def test_no_cpu_saturates(weight: np.ndarray) -> None:
    """The activations that drive each column's sums furthest, up and down."""
    for column in quantize_columns(weight)[0].T.tolist():
        for extreme in (
            [255 * (w > 0) for w in column],
            [255 * (w < 0) for w in column],
            [255] * len(column),
        ):
            assert vpmaddubsw(extreme, column) == sum(a * w for a, w in zip(extreme, column, strict=True))


def test_the_reference_does_saturate() -> None:
    assert vpmaddubsw([255, 255], [127, 127]) == 2**15 - 1


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([1.0, 0.0, -1.0, 0.0], [127, 0, -127, 0]),  # alone in its pair, a weight has the whole range
        ([1.0, 1.0, 0.0, 0.0], [64, 64, 0, 0]),  # a pair of one sign shares it
        ([1.0, -1.0], [127, -127]),  # opposite signs do not add up
        ([3.0], [127]),
        ([0.0, 0.0, 0.0], [0, 0, 0]),
    ],
)
def test_columns_by_hand(column: list[float], expected: list[int]) -> None:
    quantized, scale = quantize_columns(np.array([column], np.float32).T)
    assert quantized[:, 0].tolist() == expected
    assert scale[0] == pytest.approx(
        max(map(abs, column)) * (2 if expected[:2] == [64, 64] else 1) / 127 or 1.0
    )


def test_columns_do_not_share_a_scale() -> None:
    weight = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32) * np.float32([1, 1000])
    both = quantize_columns(weight)
    for n in range(2):
        alone = quantize_columns(weight[:, n : n + 1])
        assert np.array_equal(alone[0][:, 0], both[0][:, n])
        assert alone[1][0] == both[1][n]


def test_activations_against_rounding_by_hand() -> None:
    hidden = np.linspace(-1, 1, 1001, dtype=np.float32)
    by_hand = [round(float(h / np.float32(1 / 127))) + 128 for h in hidden]
    assert quantize_activations(hidden).tolist() == by_hand
    assert quantize_activations(np.float32([-1, 0, 1])).tolist() == [1, 128, 255]


def test_activations_are_what_onnx_runtime_makes_of_them() -> None:
    import onnx
    import onnxruntime as ort
    from onnx import helper

    from charrnn.export.arithmetic import GraphBuilder, Int8

    graph = GraphBuilder()
    Int8(graph).linear(["h"], np.eye(4, dtype=np.float32), None, "y")
    values = [helper.make_tensor_value_info("h", onnx.TensorProto.FLOAT, ["B", 4])]
    result = [helper.make_tensor_value_info("h.int8", onnx.TensorProto.UINT8, ["B", 4])]
    body = helper.make_graph(graph.nodes[:1], "quantize", values, result, graph.initializers[:2])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    hidden = np.linspace(-1.02, 1.02, 4000, dtype=np.float32).reshape(-1, 4)
    assert np.array_equal(session.run(None, {"h": hidden})[0], quantize_activations(hidden))

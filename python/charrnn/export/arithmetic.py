"""Matrix products of the step graph, in float32 or in 8-bit integers, and the nodes they are written to.

Knows ONNX operators, not cells. Every constant is an initializer of the graph: external data is never used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import onnx
from onnx import helper, numpy_helper

from charrnn.export.quantize import ACTIVATION_SCALE, ACTIVATION_ZERO_POINT, quantize_columns
from charrnn.export.weights import Array

PRECISIONS = ("fp32", "int8")


class GraphBuilder:
    """Nodes and constants in the order they were added; every tensor is named after what it holds."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._constants: set[str] = set()

    def constant(self, name: str, value: Any) -> str:
        """Add a constant once; a second call with the same name returns it."""
        if name not in self._constants:
            self._constants.add(name)
            self.initializers.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def op(self, kind: str, inputs: Sequence[str], output: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output."""
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, domain=domain, **attributes))
        return output

    def split(self, tensor: str, outputs: Sequence[str], width: int) -> Sequence[str]:
        """Cut (B, len(outputs) * width) into equal parts along its last axis."""
        sizes = self.constant(f"split_{len(outputs)}x{width}", np.full(len(outputs), width, np.int64))
        self.nodes.append(helper.make_node("Split", [tensor, sizes], outputs, name=f"{tensor}.split", axis=1))
        return outputs


class Arithmetic(Protocol):
    """How a precision multiplies."""

    def linear(self, inputs: Sequence[str], weight: Array, bias: Array | None, output: str) -> str:
        """``concat(inputs) @ weight + bias``: (B, K) of hidden states by (K, N) gives (B, N)."""


class Float32:
    """Products in float32."""

    def __init__(self, graph: GraphBuilder) -> None:
        self._graph = graph
        self._joined: dict[tuple[str, ...], str] = {}

    def linear(self, inputs: Sequence[str], weight: Array, bias: Array | None, output: str) -> str:
        """``concat(inputs) @ weight + bias`` as Gemm, or MatMul without a bias."""
        operands = [
            _join(self._graph, self._joined, inputs),
            self._graph.constant(f"{output}.weight", weight),
        ]
        if bias is None:
            return self._graph.op("MatMul", operands, output)
        return self._graph.op("Gemm", [*operands, self._graph.constant(f"{output}.bias", bias)], output)


class Int8:
    """Products of 8-bit integers, exact in 32 bits, then scaled per column and biased in float32.

    MatMulIntegerToFloat does product, scale and bias in one node: 10 % of a step less than MatMulInteger,
    Cast and Mul at a batch of 64. A hidden state is quantised once, however many products read it.
    """

    def __init__(self, graph: GraphBuilder) -> None:
        self._graph = graph
        self._joined: dict[tuple[str, ...], str] = {}
        self._quantized: dict[str, str] = {}
        self._scale = graph.constant("activation.scale", ACTIVATION_SCALE)
        self._zero_point = graph.constant("activation.zero_point", ACTIVATION_ZERO_POINT)

    def linear(self, inputs: Sequence[str], weight: Array, bias: Array | None, output: str) -> str:
        """``concat(inputs) @ weight + bias`` with inputs and weight quantised."""
        quantized, scale = quantize_columns(weight)
        operands = [
            _join(self._graph, self._joined, [self._quantize(name) for name in inputs]),
            self._graph.constant(f"{output}.weight", quantized),
            self._scale,
            self._graph.constant(f"{output}.scale", scale),
            self._zero_point,
        ]
        if bias is not None:
            operands += ["", self._graph.constant(f"{output}.bias", bias)]  # "": weights have no zero point
        return self._graph.op("MatMulIntegerToFloat", operands, output, domain="com.microsoft")

    def _quantize(self, name: str) -> str:
        if name not in self._quantized:
            operands = [name, self._scale, self._zero_point]
            self._quantized[name] = self._graph.op("QuantizeLinear", operands, f"{name}.int8")
        return self._quantized[name]


def _join(graph: GraphBuilder, joined: dict[tuple[str, ...], str], names: Sequence[str]) -> str:
    """The tensors side by side, concatenated once however many products read them."""
    if len(names) == 1:
        return names[0]
    key = tuple(names)
    if key not in joined:
        joined[key] = graph.op("Concat", names, ".".join(names), axis=1)
    return joined[key]


def arithmetic_for(precision: str, graph: GraphBuilder) -> Arithmetic:
    """The arithmetic of ``"fp32"`` or ``"int8"``."""
    return Int8(graph) if precision == "int8" else Float32(graph)

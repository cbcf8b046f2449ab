"""A bundle's step graph in Python's ONNX Runtime.

Knows neither requests nor how streams share a step.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from charrnn import Bundle
from charrnn._pb import charrnn_pb2 as pb

Floats = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int64]
State = list[Floats]


class Model:
    """A bundle's step graph in ONNX Runtime, with so many threads a session."""

    def __init__(self, path: Path, threads: int, precision: str | None) -> None:
        self.bundle = Bundle.open(path)
        if self.bundle.vocab.unit != "char":
            raise SystemExit(f"{path} has a byte vocabulary; the yardsticks serve characters only")
        self.precision = precision or ("int8" if "int8" in self.bundle.precisions else "fp32")
        self.chars = [chr(symbol) for symbol in self.bundle.vocab.symbols]
        self.end_token = self.bundle.end_token
        start_token = json.loads((path / "manifest.json").read_text())["start_token"]
        self.start_token = start_token if self.end_token is None else self.end_token
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        graph = self.bundle.precisions[self.precision].path
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        states = [node for node in self._session.get_inputs() if node.name != "token"]
        self._names, self._widths = [node.name for node in states], [node.shape[1] for node in states]
        self._outputs = ["logits", *(f"{name}_out" for name in self._names)]

    def zero_state(self, batch_size: int) -> State:
        """Each (B, H)."""
        return [np.zeros((batch_size, width), np.float32) for width in self._widths]

    def step(self, tokens: Tokens, state: State) -> tuple[Floats, State]:
        """Logits (B, V) and the state after ``tokens`` (B,)."""
        feeds = dict(zip(self._names, state, strict=True))
        logits, *after = self._session.run(self._outputs, feeds | {"token": tokens})
        return logits, after

    def to_pb(self) -> pb.Model:
        """What ListModels says of it."""
        bundle = self.bundle
        return pb.Model(
            name=bundle.name,
            version=bundle.digest[:12],
            digest=bundle.digest,
            cell=bundle.cell,
            num_layers=bundle.num_layers,
            hidden_size=bundle.hidden_size,
            precision=self.precision,
            state_bytes=4 * sum(self._widths),
            vocab=pb.Vocab(unit=pb.UNIT_CHAR, symbols=bundle.vocab.symbols),
            bpc=bundle.precisions[self.precision].bpc,
            end_token=bundle.end_token,
        )

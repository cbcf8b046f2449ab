"""The manifest of a bundle: shapes, vocabulary, precisions and the sha256 of every file.

What a reader accepts is decided in the Rust core; this only writes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from charrnn.export.report import ExportReport, PrecisionReport
from charrnn.export.source import TrainedModel
from charrnn.export.weights import StepWeights

MANIFEST = "manifest.json"
FORMAT = "charrnn-bundle"
VERSION = 1
FILE_NAMES = {"fp32": "step.onnx", "int8": "step.int8.onnx"}


def manifest_bytes(
    source: TrainedModel, weights: StepWeights, report: ExportReport, files: Mapping[str, bytes]
) -> bytes:
    """The manifest as JSON, one line a top-level key; ``files`` are all others of the bundle."""
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "name": report.name,
        **({} if report.model_version is None else {"model_version": report.model_version}),
        "cell": weights.cell,
        "num_layers": len(weights.layers),
        "hidden_size": weights.hidden_size,
        "embedding_dim": 0 if weights.embedding is None else int(weights.embedding.shape[1]),
        "vocab": {"unit": source.unit, "symbols": list(source.symbols)},
        "start_token": source.start_token,
        **({} if source.end_token is None else {"end_token": source.end_token}),
        "state": [{"name": state, "width": weights.hidden_size} for state in weights.state_names],
        "precisions": {entry.precision: _precision(entry) for entry in report.precisions},
        "files": {path: _file(content) for path, content in files.items()},
        "training": {**source.training, "judged_on": _judged_on(report)},
    }
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in manifest.items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _precision(entry: PrecisionReport) -> dict[str, Any]:
    return {
        "path": entry.file,
        "bpc": entry.bpc,
        "max_abs_logit_difference": entry.max_abs_logit_difference,
    }


def _judged_on(report: ExportReport) -> dict[str, Any]:
    return {"part": "validation", "num_tokens": report.num_tokens, "torch_bpc": report.torch_bpc}


def _file(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}

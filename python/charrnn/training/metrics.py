"""The run's diary: one JSON object a line, in the order of steps, none twice."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from charrnn.training.files import replacing


class MetricsFile:
    """Appends to metrics.jsonl; what was written after ``step`` by a process that died is cut off first."""

    def __init__(self, path: Path, step: int) -> None:
        _cut(path, step)
        self._file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115

    def write(self, kind: str, step: int, **fields: Any) -> None:
        """Add a line; numbers that are not finite become null."""
        line = {"kind": kind, "step": step} | {name: _finite(value) for name, value in fields.items()}
        self._file.write(json.dumps(line) + "\n")

    def sync(self) -> None:
        """Flush to disk: before a checkpoint that counts on these lines."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cut(path: Path, step: int) -> None:
    if not path.exists():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if _is_up_to(line, step)]
    if kept != lines:
        with replacing(path) as file:
            file.writelines(kept)


def _is_up_to(line: bytes, step: int) -> bool:
    """Whether a line is whole and tells of no later step."""
    try:
        return line.endswith(b"\n") and int(json.loads(line)["step"]) <= step
    except (ValueError, KeyError, TypeError):
        return False

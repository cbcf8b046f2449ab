"""The run's diary: one JSON object a line, in the order of steps, none twice.

A disk that takes no line for a while loses none: they wait in memory, and ``sync`` says so.
"""

from __future__ import annotations

import json
import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from charrnn.training.files import replacing


class MetricsFile:
    """Appends to metrics.jsonl; what was written after ``step`` by a process that died is cut off first."""

    def __init__(self, path: Path, step: int) -> None:
        _cut(path, step)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._size = os.fstat(self._file).st_size
        self._waiting = b""

    def write(self, kind: str, step: int, **fields: Any) -> None:
        """Add a line; numbers that are not finite become null."""
        line = {"kind": kind, "step": step} | {name: _finite(value) for name, value in fields.items()}
        self._waiting += json.dumps(line).encode() + b"\n"
        with suppress(OSError):  # told by sync, before a checkpoint counts on the lines
            self._flush()

    def _flush(self) -> None:
        """Write all lines that wait, or none."""
        written = 0
        try:
            while written < len(self._waiting):
                written += os.write(self._file, self._waiting[written:])
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size, self._waiting = self._size + written, b""

    def sync(self) -> None:
        """Flush to disk: before a checkpoint that counts on these lines.

        Raises:
            OSError: the disk does not take them.
        """
        self._flush()
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class NoMetrics(MetricsFile):
    """Of a process that writes nothing."""

    def __init__(self) -> None:
        pass

    def write(self, kind: str, step: int, **fields: Any) -> None:
        """Leave it to another process."""

    def sync(self) -> None:
        """There is nothing to flush."""

    def close(self) -> None:
        """There is nothing to close."""


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

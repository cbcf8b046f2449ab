"""A run's diary, metrics.jsonl, read back: also while the run goes on writing it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from charrnn.training.run_folder import RunFolder


def read_diary(path: Path) -> list[dict[str, Any]]:
    """Lines of a run in their order; a line that is half written or damaged is left out."""
    file = RunFolder(path).metrics
    if not file.is_file():
        return []
    return [line for text in file.read_bytes().splitlines() if (line := _parsed(text)) is not None]


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) and isinstance(line.get("step"), int) else None

"""The blocks of Python in docs/ run as they stand, from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

DOCS = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_the_examples_run(
    path: Path, tiny_run: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    names: dict[str, Any] = {"bundle": tiny_bundle, "run": tiny_run}
    for block in blocks:
        exec(compile(block, path.name, "exec"), names)
    assert capsys.readouterr().out

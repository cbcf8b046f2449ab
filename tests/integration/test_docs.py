"""The blocks of Python and of the shell in docs/ run as they stand, from top to bottom."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)
DOCS = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))
RUNNABLE = [path for path in DOCS if BLOCK.search(path.read_text())]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A shell that stops at the first failure and knows ``charrnn``, in a folder of its own."""
    if (bash := shutil.which("bash")) is None:
        pytest.skip("there is no bash to run the blocks with")
    command = tmp_path / "bin/charrnn"
    command.parent.mkdir()
    command.write_text(f'#!{bash}\nexec "{sys.executable}" -m charrnn "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return [bash, "-euo", "pipefail", "-c"]


def test_there_are_pages_with_examples() -> None:
    assert {path.name for path in RUNNABLE} >= {"sampler.md", "training.md"}


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: path.name)
def test_the_examples_run(
    path: Path, shell: list[str], tiny_run: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {"bundle": tiny_bundle, "run": tiny_run}
    for kind, block in BLOCK.findall(path.read_text()):
        if kind == "python":
            exec(compile(block, path.name, "exec"), names)
            assert capsys.readouterr().out or "print" not in block
        else:
            done = subprocess.run([*shell, block], capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
            assert done.stdout

"""``charrnn report`` tells which files it wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from charrnn.cli import main
from tests.servers import run_charrnn


def test_the_files_are_named(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    done = run_charrnn("report", tiny_run, "--out", page, "--threads", "1")
    assert done.returncode == 0, done.stderr
    names = done.stdout.splitlines()
    assert names[0] == str(page)
    assert [Path(name).exists() for name in names] == [True] * 5
    assert main(["report", str(tmp_path)]) == 3
    assert "is it a run folder?" in capsys.readouterr().err

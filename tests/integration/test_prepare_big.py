"""A text far bigger than memory may be becomes a run folder in little of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "benches" / "prepare.py"
TEXT_BYTES, MAX_MB = 2 * 10**9, 300


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("kind", "split"), [("ascii", "tail"), ("chinese", "interleaved"), ("names", "interleaved")]
)
def test_two_gigabytes_are_prepared_in_300_megabytes(kind: str, split: str, tmp_path: Path) -> None:
    needed = 2 * TEXT_BYTES + 2**30
    if (free := shutil.disk_usage(tmp_path).free) < needed:
        pytest.skip(f"needs {needed:,} bytes of disk in {tmp_path}, {free:,} are free")
    try:
        done = subprocess.run(
            [sys.executable, BENCH, "--megabytes", "2000", "--split", split, "--folder", tmp_path, kind],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        for path in tmp_path.iterdir():
            shutil.rmtree(path, ignore_errors=True)
    assert done.returncode == 0, done.stderr
    *_, megabytes, _, _, _, memory = done.stdout.split()
    assert float(megabytes) >= 2000
    assert float(memory) <= MAX_MB

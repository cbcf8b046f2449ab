"""The types that ``_native.pyi`` declares are those of the extension."""

from __future__ import annotations

import subprocess
import sys


def test_the_stubs_are_the_extensions() -> None:
    command = [sys.executable, "-m", "mypy.stubtest", "charrnn._native"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

"""Reading a server's metrics for tests, as Prometheus would."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from charrnn.cli.serve import METRICS, READY
from tests.servers import COMMAND


@contextlib.contextmanager
def serving_metrics(bundle: Path) -> Iterator[tuple[str, str]]:
    """The address of a server and the URL of its metrics; the server is killed at the end."""
    listen = ["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]
    command = [*COMMAND, "serve", str(bundle), "--workers", "1", *listen]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            ready, metrics = process.stderr.readline(), process.stderr.readline()
            assert ready.startswith(READY), ready
            assert metrics.startswith(METRICS), metrics
            yield ready.removeprefix(READY).split(";")[0], metrics.removeprefix(METRICS).strip()
        finally:
            process.kill()


def read(url: str, token: str | None = None) -> str:
    """The page at ``url``, which must be there."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    with urllib.request.urlopen(request, timeout=30) as response:
        return str(response.read().decode())


def series(page: str) -> dict[str, float]:
    """Every series of a page, by its name and labels as written."""
    lines = (line.rpartition(" ") for line in page.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def types(page: str) -> dict[str, str]:
    """The families of a page and what they are."""
    lines = (line.split() for line in page.splitlines() if line.startswith("# TYPE "))
    return {name: kind for _, _, name, kind in lines}


def promtool(*arguments: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """``promtool ARGUMENTS`` with ``text`` on its stdin; the test is skipped where there is none."""
    path = os.pathsep.join([os.environ["PATH"], str(Path.home() / "go" / "bin")])
    if (tool := shutil.which("promtool", path=path)) is None:
        pytest.skip("promtool is not installed: it comes with Prometheus")
    return subprocess.run(
        [tool, *map(str, arguments)], input=text, capture_output=True, text=True, timeout=60, check=False
    )

"""Servers that tests kill, starve and watch: their addresses, and what their metrics and /proc say."""

from __future__ import annotations

import contextlib
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from charrnn.cli.serve import METRICS, READY
from tests.scrapes import read, series
from tests.servers import COMMAND

PATIENCE_S = 120


def eventually(what: str, holds: Callable[[], object]) -> None:
    """Waits until it holds, which it must within reason."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < give_up_at, f"never came: {what}"
        time.sleep(0.02)


@dataclass(frozen=True)
class Replica:
    """One server."""

    process: subprocess.Popen[bytes]
    address: str
    metrics_url: str

    def num_live(self) -> float:
        """Texts that run, are parked or wait."""
        found = series(read(self.metrics_url))
        names = ("charrnn_active_streams{", "charrnn_queue_depth{")
        return sum(value for name, value in found.items() if name.startswith(names))

    def forget_peak(self) -> None:
        """The next ``peak_bytes`` is of the time from here on."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def peak_bytes(self) -> int:
        """The most memory that the process had at once."""
        status = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        (line,) = (line for line in status if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    def cpu_s(self) -> float:
        """Processor time used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100


@contextlib.contextmanager
def replica(bundle: Path, folder: Path, *, max_files: int | None = None) -> Iterator[Replica]:
    """A server with one worker and room for ``max_files`` open files; killed at the end.

    ``folder`` keeps what it says, which nobody reads: a pipe would fill up.
    """
    command = [*COMMAND, "serve", str(bundle), "--workers", "1"]
    listen = ["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]
    limit = (
        None if max_files is None else (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (max_files,) * 2))
    )
    log = folder / f"{time.monotonic_ns()}.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen([*command, *listen], stderr=stderr, preexec_fn=limit)
    try:
        eventually("it serves", lambda: METRICS in log.read_text() or process.poll() is not None)
        lines = log.read_text().splitlines()
        ready, metrics = (next(line for line in lines if line.startswith(word)) for word in (READY, METRICS))
        address, url = ready.removeprefix(READY).split(";")[0], metrics.removeprefix(METRICS).strip()
        yield Replica(process, address, url)
    finally:
        process.kill()
        process.wait()

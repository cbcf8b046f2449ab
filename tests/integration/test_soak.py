"""Everything at once for ``SOAK_SECONDS``: nothing leaks, nothing is miscounted, every text is exact."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from charrnn.bench.load import run_load
from charrnn.bench.plan import LoadPlan
from tests.scrapes import read, series, serving_metrics

SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
ROUND_S = 20.0
DISTINCT = 16
TEXTS_A_CLIENT = 8
REASONS = (
    "length",
    "stop",
    "match",
    "end",
    "deadline",
    "drained",
    "scored",
    "cancelled",
    "failed",
    "stopped",
    "stalled",
)

# A client that asks for much and is killed in the midst of it.
DOOMED = """
import sys
from charrnn import Client
streams = [Client(sys.argv[1]).generate(max_tokens=1_000_000) for _ in range(8)]
for stream in streams:
    next(stream)
print("reading", flush=True)
while True:
    for stream in streams:
        next(stream)
"""


class Crashing:
    """Clients that come and are killed, one after the other, until it is closed."""

    def __init__(self, address: str) -> None:
        self._address, self._is_over, self.num_killed = address, threading.Event(), 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_over.is_set():
            command = [sys.executable, "-c", DOOMED, self._address]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
                assert client.stdout is not None
                client.stdout.readline()
                client.kill()
            self.num_killed += 1

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()


def load(address: str, seed: int) -> Mapping[str, Any]:
    """Texts of all lengths: whole, cancelled, slowly read and late; each compared with itself alone."""
    plan = LoadPlan(
        address=address,
        rate=40.0,
        duration_s=ROUND_S,
        warmup_s=0.0,
        seed=seed,
        max_tokens={"lognormal": {"median": 200, "sigma": 1.0}},
        cancel_fraction=0.2,
        slow_fraction=0.05,
        slow_read_ms=50.0,
        deadline_ms={"uniform": [5, 20_000]},
        check=True,
        distinct=DISTINCT,
    )
    return run_load(plan)


@pytest.mark.slow
@pytest.mark.timeout(SECONDS * 2 + 600)
def test_nothing_leaks_and_all_is_counted(tiny_bundle: Path) -> None:
    begun, rss, fds = time.monotonic(), list[float](), list[float]()
    told = Counter[str]()
    with serving_metrics(tiny_bundle) as (address, url):
        crashing = Crashing(address)
        try:
            while time.monotonic() < begun + SECONDS or len(rss) < 6:
                outcomes = load(address, seed=len(rss))["outcomes"]
                assert not set(outcomes) - {"ok", "cancelled", "DEADLINE_EXCEEDED"}, outcomes
                told.update(outcomes)
                now = series(read(url))
                rss.append(now["process_resident_memory_bytes"])
                fds.append(now["process_open_fds"])
        finally:
            crashing.close()
        assert crashing.num_killed > 0
        while (last := series(read(url)))['charrnn_active_streams{model="tiny"}']:  # bounded by the timeout
            time.sleep(0.1)
    assert max(rss[len(rss) // 2 :]) < 1.1 * max(rss[: len(rss) // 2]) + 2**22
    assert max(fds[len(fds) // 2 :]) <= max(fds[: len(fds) // 2]) + 8
    assert last['charrnn_queue_depth{model="tiny"}'] == 0
    ended = {reason: last[f'charrnn_requests_total{{model="tiny",reason="{reason}"}}'] for reason in REASONS}
    # Every text is counted once: of the rounds, of those they are compared with, and of killed clients.
    num_killed, num_alone = TEXTS_A_CLIENT * crashing.num_killed, sum(ended.values()) - sum(told.values())
    num_alone -= num_killed
    assert 0 <= num_alone <= len(rss) * (DISTINCT + 1), (ended, told, num_killed)
    assert ended["cancelled"] >= num_killed
    assert not any(ended[reason] for reason in ("failed", "stopped", "stalled", "drained", "scored")), ended

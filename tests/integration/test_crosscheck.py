"""The client that ``charrnn bench`` is checked against: what it counts, and what the check lets through."""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FINISHED, chunk, fake_server, started

BENCHES = Path(__file__).parents[2] / "benches"


@pytest.fixture
def aio_client(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHES)
    return importlib.import_module("aio_client")


@pytest.fixture
def crosscheck(aio_client: Any) -> Any:
    return importlib.import_module("crosscheck")


def alone(address: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, BENCHES / "crosscheck.py", address, "--alone", "--warmup", "0.2", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_open_loop_hears_what_it_asked_for() -> None:
    seeds = []

    def generate(request, context):
        seeds.append(request.sampling.seed)
        assert (request.prompt, request.stopping.max_tokens) == ("abc", 9)
        yield from (started(), chunk("four"), chunk("five5", 4), FINISHED)

    with fake_server(generate) as address:
        options = [
            "--rate",
            "50",
            "--seconds",
            "0.4",
            "--rounds",
            "1",
            "--prompt",
            "abc",
            "--max-tokens",
            "9",
        ]
        done = alone(address, *options)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["figures"]
    assert sorted(seeds) == list(range(30))
    assert 0 < figures["first_char_ms.p50"] <= figures["request_ms.p50"] <= figures["request_ms.p99"]
    assert figures["chars_per_s"] <= 9 * 30 / 0.4


def test_a_closed_loop_keeps_so_many_under_way_and_asks_again() -> None:
    together, seeds = threading.Barrier(3), []

    def generate(request, context):
        seeds.append(request.sampling.seed)
        if request.sampling.seed < 3:
            together.wait(timeout=60)
        yield from (started(), chunk("text"), FINISHED)

    with fake_server(generate) as address:
        done = alone(address, "--streams", "3", "--seconds", "1", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    assert {0, 1, 2, 3, 4, 5} <= set(seeds)
    assert len(set(seeds)) == len(seeds)


def test_a_failed_request_fails_the_check() -> None:
    def generate(request, context):
        yield started()
        raise ValueError("wrong")

    with fake_server(generate) as address:
        done = alone(address, "--rate", "20", "--seconds", "0.2")
    assert done.returncode == 1
    assert done.stderr.startswith("a request failed: ")


def test_latency_counts_from_when_a_request_was_due(aio_client: Any) -> None:
    heard = aio_client.Heard(begin=10.0, end=20.0)
    heard.text(due=9.9, first=10.1, now=10.2)  # of the warm-up
    heard.text(due=11.0, first=11.5, now=13.0)
    heard.text(due=19.9, first=20.5, now=22.9)  # due in time, whenever it ends
    heard.chunk(9.0, 100)
    heard.chunk(10.0, 30)
    heard.chunk(20.0, 100)
    figures = heard.figures()
    assert figures["chars_per_s"] == 3
    assert figures["first_char_ms.mean"] == pytest.approx(550)
    assert figures["request_ms.p50"] == pytest.approx(2500)


def test_ratios_are_medians_of_rounds_and_judged_by_5_percent(crosscheck: Any) -> None:
    ours = [{"request_ms.p50": 1.0 * drift, "request_ms.p99": 9.0, "only": 1.0} for drift in (1, 3, 2)]
    theirs = [{"request_ms.p50": 1.04 * drift, "request_ms.p99": 1.0} for drift in (1, 3, 2)]
    found = crosscheck.ratios(ours, theirs)
    assert found == pytest.approx({"request_ms.p50": 1 / 1.04, "request_ms.p99": 9.0})
    assert crosscheck.off(found) == []
    for wrong in (1.06, 0.94, math.nan):
        assert crosscheck.off({"request_ms.mean": wrong, "chars_per_s": 1.0}) == ["request_ms.mean"]


def test_the_table_has_both_and_says_what_is_off(crosscheck: Any, capsys: pytest.CaptureFixture[str]) -> None:
    bench = [{"request_ms.p50": 20.0, "chars_per_s": 99.0}]
    rounds = {"grpc.aio": [{"request_ms.p50": 10.0, "chars_per_s": 100.0}], "charrnn bench": bench}
    assert crosscheck.compare(rounds | {"ghz": [{"request_ms.p50": 20.1}]}) == [
        "request_ms.p50 beside grpc.aio"
    ]
    out = capsys.readouterr().out
    assert json.loads(out.splitlines()[-1])["ratios"]["ghz"] == {"request_ms.p50": pytest.approx(20 / 20.1)}

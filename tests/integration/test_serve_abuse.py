"""A server that is asked strange things, whose readers vanish, whose files and clock change."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from charrnn import Client, Engine
from charrnn._pb import charrnn_pb2 as pb
from charrnn.bench.load import run_load
from charrnn.bench.plan import LoadPlan
from charrnn.cli.serve import READY
from charrnn.errors import CharrnnError, RequestError
from tests.scrapes import read, series, serving_metrics
from tests.servers import COMMAND

ENDLESS = 1_000_000
LONGEST_PROMPT = 65_536
LIBFAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


def running(url: str) -> float:
    """Texts that have a slot, or had one and wait for their reader."""
    return series(read(url))['charrnn_active_streams{model="tiny"}']


def test_odd_requests_make_no_series(tiny_bundle: Path) -> None:
    with serving_metrics(tiny_bundle) as (address, url), grpc.insecure_channel(address) as channel:
        before = series(read(url)).keys()
        generate = channel.unary_stream(
            "/charrnn.v1.CharRnn/Generate",
            request_serializer=pb.GenerateRequest.SerializeToString,
            response_deserializer=pb.GenerateResponse.FromString,
        )
        for i in range(300):
            odd = pb.GenerateRequest(
                request_id=f"id-{i}", model=("" if i % 3 else f"model-{i}"), prompt="é" * (i % 2) + "The"
            )
            odd.sampling.temperature = (0.0, 1.0, -1.0, float("nan"))[i % 4]
            odd.stopping.max_tokens = (1, 0, 5)[i % 3]
            with contextlib.suppress(grpc.RpcError):
                list(generate(odd, metadata=[(f"x-odd-{i}", "1")]))
        with contextlib.suppress(grpc.RpcError):
            channel.unary_unary("/charrnn.v1.CharRnn/Odd")(b"")
        assert series(read(url)).keys() == before


def test_a_bundle_overwritten_under_the_server_changes_nothing(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "tiny")
    with serving_metrics(bundle) as (address, _), Client(address) as client:
        before = client.generate(max_tokens=500, seed=3).read()
        for path in bundle.iterdir():
            path.write_bytes(b"nothing of a model")
        assert client.generate(max_tokens=500, seed=3).read() == before


READERS = """
import sys
from charrnn import Client
client = Client(sys.argv[1])
streams = [client.generate(max_tokens=1_000_000) for _ in range(20)]
for stream in streams:
    next(stream)
print("reading", flush=True)
while True:
    for stream in streams:
        next(stream)
"""


def test_readers_killed_free_their_slots(tiny_bundle: Path) -> None:
    with serving_metrics(tiny_bundle) as (address, url):
        for _ in range(2):
            with subprocess.Popen(
                [sys.executable, "-c", READERS, address], stdout=subprocess.PIPE, text=True
            ) as client:
                assert client.stdout is not None
                assert client.stdout.readline() == "reading\n"
                assert running(url) == 20
                client.kill()
            while running(url):  # bounded by the test's timeout
                time.sleep(0.02)


def test_two_hundred_slow_readers_cost_little_and_spare_the_others(tiny_bundle: Path) -> None:
    with serving_metrics(tiny_bundle) as (address, url), Client(address) as client:
        alone = client.generate(max_tokens=2000, seed=8).read()
        rss = "process_resident_memory_bytes"
        before = series(read(url))[rss]
        plan = LoadPlan(
            address=address,
            streams=200,
            duration_s=4.0,
            warmup_s=0.0,
            drain_s=0.0,
            slow_fraction=1.0,
            slow_read_ms=1000.0,
            max_tokens={"uniform": [ENDLESS, ENDLESS]},
        )
        report = run_load(plan)
        after = series(read(url))[rss]
        assert client.generate(max_tokens=2000, seed=8).read() == alone
    assert report["slow"] == sum(report["outcomes"].values()) > 0
    assert set(report["outcomes"]) == {"unfinished"}
    assert after - before < 50 * 2**20


def test_the_longest_prompt_is_read_beside_others_and_a_longer_one_refused(tiny_bundle: Path) -> None:
    with Engine(tiny_bundle, workers=1) as engine:
        alone = engine.generate("The dog ", max_tokens=3000, seed=2).read()
    with serving_metrics(tiny_bundle) as (address, _), Client(address) as client:
        neighbours = [client.generate("The dog ", max_tokens=3000, seed=2) for _ in range(15)]
        long = client.generate("T" * LONGEST_PROMPT, max_tokens=5, seed=1)
        assert [neighbour.read() for neighbour in neighbours] == [alone] * 15
        assert len(long.read()) == 5
        with pytest.raises(RequestError, match=r"65,?536"):
            client.generate("T" * (LONGEST_PROMPT + 1), max_tokens=5).read()


@contextlib.contextmanager
def _with_a_clock_of_its_own(bundle: Path, clock: Path) -> Iterator[str]:
    """A server that takes the time of day from a file; the clock that only runs forward stays true."""
    faked = {
        "LD_PRELOAD": str(LIBFAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    command = [*COMMAND, "serve", str(bundle), "--listen", "127.0.0.1:0", "--workers", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | faked) as server:
        try:
            assert server.stderr is not None
            line = server.stderr.readline()
            assert line.startswith(READY), line
            yield line.removeprefix(READY).split(";")[0]
        finally:
            server.send_signal(signal.SIGKILL)


@pytest.mark.skipif(not LIBFAKETIME.exists(), reason="libfaketime is not installed")
def test_the_time_of_day_may_jump(tiny_bundle: Path, tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0")
    with _with_a_clock_of_its_own(tiny_bundle, clock) as address, Client(address, timeout=90) as client:
        alone = client.generate(max_tokens=20_000, seed=4).read()
        stream = client.generate(max_tokens=20_000, seed=4)
        text = next(stream).text
        for jump in ("+400d", "-400d", "+0"):
            clock.write_text(jump)
            text += next(stream).text + client.generate(max_tokens=50, seed=4).read()[:0]
        assert text + stream.read() == alone


def test_what_is_no_call_leaves_the_others_alone(tiny_bundle: Path) -> None:
    with serving_metrics(tiny_bundle) as (address, _), Client(address) as client:
        stream = client.generate(max_tokens=3000, seed=6)
        text = next(stream).text
        with grpc.insecure_channel(address) as channel:
            for path, body in (("/charrnn.v1.CharRnn/Generate", b"\xff\xff"), ("/nowhere/Nothing", b"")):
                with pytest.raises(grpc.RpcError):
                    list(channel.unary_stream(path)(body))
        with pytest.raises(CharrnnError):
            client.generate("T", max_tokens=1, model="none").read()
        assert text + stream.read() == client.generate(max_tokens=3000, seed=6).read()

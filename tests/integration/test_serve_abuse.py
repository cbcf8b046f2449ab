"""A server that is asked strange things, whose readers vanish, whose files and clock change."""

from __future__ import annotations

import collections
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
from charrnn.cli.serve import READY
from charrnn.errors import CharrnnError
from tests.scrapes import read, series, serving_metrics
from tests.servers import COMMAND

ENDLESS = 1_000_000
LONGEST_PROMPT = 65_536
NUM_ODD = 100_000
LIBFAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


def running(url: str) -> float:
    """Texts that have a slot, or had one and wait for their reader."""
    return series(read(url))['charrnn_active_streams{model="tiny"}']


def odd_request(i: int) -> pb.GenerateRequest:
    """One that no other is like, and mostly wrong."""
    odd = pb.GenerateRequest(request_id=f"id-{i}", prompt="é" * (i % 2) + "The")
    if i % 3:
        odd.model, odd.version = f"model-{i}", f"version-{i}"
    odd.sampling.temperature = (0.0, 1.0, -1.0, float("nan"))[i % 4]
    odd.sampling.seed = i
    odd.stopping.max_tokens = (1, 0, 5)[i // 3 % 3]
    odd.stopping.stop.extend([f"{i}"] * (i % 5))
    return odd


def test_odd_requests_make_no_series(tiny_bundle: Path) -> None:
    with serving_metrics(tiny_bundle) as (address, url), grpc.insecure_channel(address) as channel:
        before = series(read(url)).keys()
        ends = collections.Counter[str]()
        many = channel.stream_stream(
            "/charrnn.v1.CharRnn/GenerateMany",
            request_serializer=pb.GenerateRequest.SerializeToString,
            response_deserializer=pb.GenerateResponse.FromString,
        )
        for answer in many(odd_request(i) for i in range(NUM_ODD)):
            ends[answer.refused.reason or answer.WhichOneof("event")] += 1
        assert ends["finished"] + sum(ends[word] for word in ends if word.isupper()) == NUM_ODD
        assert {"UNKNOWN_MODEL", "BAD_REQUEST", "finished"} <= ends.keys()
        paths = ("Generate", "Score", "ListModels", "GetStats", *(f"Odd{i}" for i in range(100)))
        for i, path in enumerate(paths):
            call = channel.unary_stream(f"/charrnn.v1.CharRnn/{path}")
            with contextlib.suppress(grpc.RpcError):
                list(call(b"\xff" * (i % 3), metadata=[(f"x-odd-{i}", "1"), ("user-agent", f"odd/{i}")]))
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


NUM_NEIGHBOURS = 15


def step_s(url: str) -> tuple[float, float]:
    """Seconds and number of the steps so far."""
    found = series(read(url))
    name = 'charrnn_step_seconds_{}{{model="tiny"}}'
    return found[name.format("sum")], found[name.format("count")]


def test_the_longest_prompt_is_read_beside_others_who_lose_no_step(tiny_bundle: Path) -> None:
    """What a step costs their neighbours is printed; a busy machine keeps no time."""
    with Engine(tiny_bundle, workers=1) as engine:
        alone = engine.generate("The dog ", max_tokens=3000, seed=2).read()
    with serving_metrics(tiny_bundle) as (address, url), Client(address) as client:
        means = []
        for num_long in (0, 1):
            before, num_before = step_s(url)
            neighbours = [client.generate("The dog ", max_tokens=3000, seed=2) for _ in range(NUM_NEIGHBOURS)]
            long = [client.generate("T" * LONGEST_PROMPT, max_tokens=5, seed=1) for _ in range(num_long)]
            assert [neighbour.read() for neighbour in neighbours] == [alone] * NUM_NEIGHBOURS
            after, num_after = step_s(url)
            means.append((after - before) / (num_after - num_before))
            assert [len(stream.read()) for stream in long] == [5] * num_long
            for neighbour in neighbours:
                assert neighbour.finished is not None
                assert neighbour.finished.timing.num_steps == 3000 + len("The dog ") - 1
        print(f"a step took {means[0] * 1e6:.0f} us, and {means[1] * 1e6:.0f} us beside the longest prompt")


@pytest.mark.parametrize(
    ("num_chars", "code"),
    [
        (LONGEST_PROMPT + 1, grpc.StatusCode.INVALID_ARGUMENT),
        (1_000_000, grpc.StatusCode.INVALID_ARGUMENT),
        (5 << 20, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_a_longer_prompt_is_refused_and_the_connection_lives(
    tiny_bundle: Path, num_chars: int, code: grpc.StatusCode
) -> None:
    options = [("grpc.max_send_message_length", -1)]
    with (
        serving_metrics(tiny_bundle) as (address, _),
        grpc.insecure_channel(address, options=options) as channel,
    ):
        generate = channel.unary_stream(
            "/charrnn.v1.CharRnn/Generate",
            request_serializer=pb.GenerateRequest.SerializeToString,
            response_deserializer=pb.GenerateResponse.FromString,
        )
        live = generate(pb.GenerateRequest(prompt="The", stopping=pb.Stopping(max_tokens=100_000)))
        next(live)
        with pytest.raises(grpc.RpcError) as refused:
            list(generate(pb.GenerateRequest(prompt="T" * num_chars)))
        assert refused.value.code() is code
        *_, last = live
        assert last.finished.chars == 100_000


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

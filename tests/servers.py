"""Running the command line and servers for tests, as a user would: real processes, real sockets, port 0."""

from __future__ import annotations

import contextlib
import io
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc

from charrnn._pb import charrnn_pb2 as pb
from charrnn.cli import main

COMMAND = [sys.executable, "-m", "charrnn"]


def run_charrnn(*arguments: str | Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """``charrnn ARGUMENTS`` as a child process; never raises for its exit code."""
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def charrnn_here(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The same in this process, which has loaded its modules already."""
    words, out, talk = list(map(str, arguments)), io.BytesIO(), io.StringIO()
    stdout = io.TextIOWrapper(out, "utf-8")
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(talk):
        code = main(words)
    return subprocess.CompletedProcess(words, code, out.getvalue().decode(), talk.getvalue())


@contextlib.contextmanager
def running_server(*arguments: str | Path) -> Iterator[str]:
    """The address of ``charrnn serve ARGUMENTS`` on a free port; stopped by SIGTERM, exit code checked."""
    arguments = (*arguments, "--listen", "127.0.0.1:0", "--drain-timeout", "0")
    with running([*COMMAND, "serve", *arguments]) as address:
        yield address


@contextlib.contextmanager
def running(command: Sequence[str | Path]) -> Iterator[str]:
    """The address that a server tells in its first line; stopped by SIGTERM, exit code checked."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            ready = next((line for line in process.stderr if "127.0.0.1:" in line), "")
            match = re.search(r"127\.0\.0\.1:\d+", ready)
            assert match, "the server ended without a ready line"
            yield match.group()
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(timeout=30)
    assert code == 0, f"the server exited with {code}"


def stats(address: str) -> pb.ModelStats:
    """Of a server of one model."""
    with grpc.insecure_channel(address) as channel:
        ask = channel.unary_unary(
            "/charrnn.v1.CharRnn/GetStats",
            request_serializer=pb.GetStatsRequest.SerializeToString,
            response_deserializer=pb.GetStatsResponse.FromString,
        )
        return ask(pb.GetStatsRequest(), timeout=30).models[0]


def num_texts(address: str) -> int:
    """Texts of full length that a server of one model has made so far."""
    return int(stats(address).ended["length"])


def wait_for_texts(address: str, count: int) -> None:
    """Return when a server of one model has made ``count`` texts of full length."""
    deadline = time.monotonic() + 60
    while num_texts(address) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)

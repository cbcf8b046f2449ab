"""Three servers behind one address: one is killed, and every text that ran there goes on with another."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from charrnn import Client
from charrnn._pb import charrnn_pb2 as pb
from charrnn.calls import Settings
from charrnn.channels import Channels
from charrnn.resuming import Progress, Text
from charrnn.stream import Chunk, Finished, Started
from tests.replicas import Replica, eventually, replica

LENGTH = 20_000
NUM_TEXTS = 12
CONFIG = Path(__file__).parents[2] / "deploy" / "haproxy" / "haproxy.cfg"


def channels_to(target: str) -> Channels[grpc.Channel]:
    """Channels to one target of gRPC's, as a client's."""
    options = Settings("charrnn:1").options()
    return Channels(lambda: grpc.insecure_channel(target, options=options))


@pytest.fixture
def replicas(tiny_bundle: Path, tmp_path: Path) -> Iterator[list[Replica]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(replica(tiny_bundle, tmp_path)) for _ in range(3)]


@contextlib.contextmanager
def haproxy(replicas: list[Replica], folder: Path) -> Iterator[str]:
    """The address of HAProxy before them, with the configuration of deploy/ and their addresses."""
    path = "/usr/local/sbin:/usr/sbin:/usr/bin:/usr/local/bin"
    if (command := shutil.which("haproxy", path=path)) is None:
        pytest.skip("haproxy is not installed")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        front = taken.getsockname()[1]
    # As many connections as an ordinary limit on open files allows, and patience on a busy machine.
    text = CONFIG.read_text().replace("maxconn 20000", "maxconn 100").replace("check 10s", "check 60s")
    text = text.replace("127.0.0.1:50050", f"127.0.0.1:{front}")
    for i, each in enumerate(replicas):
        metrics_port = each.metrics_url.split(":")[2].split("/")[0]
        old = rf"127\.0\.0\.1:{50051 + i} port {9464 + i}"
        text, count = re.subn(old, f"{each.address} port {metrics_port}", text)
        assert count == 1
    (config := folder / "haproxy.cfg").write_text(text)
    with (folder / "haproxy.log").open("wb") as log:
        process = subprocess.Popen([command, "-db", "-f", str(config)], stdout=log, stderr=log)
    try:
        eventually("it listens", lambda: _answers(front) or process.poll() is not None)
        assert process.poll() is None, (folder / "haproxy.log").read_text()
        yield f"127.0.0.1:{front}"
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


class Reader:
    """What one text has told so far."""

    def __init__(self, channels: Channels[grpc.Channel]) -> None:
        request = pb.GenerateRequest(stopping=pb.Stopping(max_tokens=LENGTH))
        self.text = Text(channels, Progress(request, timeout=None, resume_s=60))
        self._events = self.text.events()
        self.read, self.seed, self.finished = "", 0, False

    def advance(self, num_events: int) -> None:
        for event in self._events:
            if isinstance(event, Started):
                self.seed = event.seed
            elif isinstance(event, Chunk):
                assert event.offset == len(self.read)
                self.read += event.text
            self.finished = isinstance(event, Finished)
            num_events -= 1
            if self.finished or not num_events:
                return


def check(
    channels: Channels[grpc.Channel], replicas: list[Replica], is_spread: Callable[[list[float]], bool]
) -> None:
    """Kills a server that has some of the texts; all end, each as the one of its seed alone."""
    readers = [Reader(channels) for _ in range(NUM_TEXTS)]
    for reader in readers:
        reader.advance(3)
    live = [each.num_live() for each in replicas]
    assert sum(live) == NUM_TEXTS
    assert is_spread(live), live
    replicas[0].process.kill()
    replicas[0].process.wait()
    for reader in readers:
        reader.advance(-1)
        assert reader.finished
        assert len(reader.read) == LENGTH
    with Client(replicas[1].address) as alone:
        for reader in readers:
            assert reader.read == alone.generate(max_tokens=LENGTH, seed=reader.seed).read()
    for each in replicas[1:]:
        eventually("nothing is left", lambda each=each: each.num_live() == 0)


def test_texts_go_on_behind_haproxy(replicas: list[Replica], tmp_path: Path) -> None:
    with haproxy(replicas, tmp_path) as address:
        check(channels_to(address), replicas, lambda live: max(live) - min(live) <= 1)


def test_texts_go_on_behind_a_client_that_goes_round(replicas: list[Replica]) -> None:
    target = channels_to("ipv4:" + ",".join(each.address for each in replicas))
    # Channels connect to all of them before the first call, or the first calls would all go to one.
    for _ in range(50):
        probe = Reader(target)
        probe.advance(1)
        probe.text.cancel()
    for each in replicas:
        eventually("the probes are gone", lambda each=each: each.num_live() == 0)
    check(target, replicas, lambda live: min(live) > 0)

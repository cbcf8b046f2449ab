"""Readers that are reset, fall silent or read a byte a second: their slots come back, nobody else notices."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from charrnn import Client
from charrnn._pb import charrnn_pb2 as pb
from tests import frames
from tests.frames import Connection, message
from tests.proxies import proxy
from tests.replicas import Replica, eventually, replica
from tests.scrapes import read, series

ENDLESS = 1_000_000
NUM_SLOW = 200
MAX_GROWTH_BYTES = 50 << 20
WIDEST = 2**31 - 1


@pytest.fixture(scope="module")
def server(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    with replica(tiny_bundle, tmp_path_factory.mktemp("left")) as found:
        yield found


def request(seed: int = 1) -> bytes:
    asked = pb.GenerateRequest(
        sampling=pb.Sampling(seed=seed), stopping=pb.Stopping(max_tokens=ENDLESS)
    ).SerializeToString()
    return message(asked)


def text(client: Client) -> str:
    return client.generate(max_tokens=2_000, seed=8).read()


def value(server: Replica, name: str) -> float:
    return series(read(server.metrics_url))[name]


def parked(server: Replica) -> float:
    return value(server, 'charrnn_parked_streams{model="tiny"}')


def stalled(server: Replica) -> float:
    return value(server, 'charrnn_requests_total{model="tiny",reason="stalled"}')


def test_a_reset_connection_gives_its_slots_back_and_its_places_in_the_queue(server: Replica) -> None:
    for _ in range(3):
        with closing(Connection(server.address, reads=False)) as connection:
            for stream in range(1, 200, 2):  # 64 of them run
                assert connection.call(stream, request())
            eventually("they run, are parked or wait", lambda: server.num_live() == 100)
            # With no time to linger a close is a reset.
            option = struct.pack("ii", 1, 0)
            connection._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
            connection._socket.close()
            eventually("none is left", lambda: server.num_live() == 0)


def test_who_falls_silent_is_let_go(server: Replica) -> None:
    """One reads all and answers no ping; a whole program's connection takes and says nothing any more."""
    settings = {frames.INITIAL_WINDOW_SIZE: WIDEST}
    with (
        ExitStack() as opened,
        closing(Connection(server.address, settings)) as deaf,
        Client(server.address) as other,
    ):
        network = opened.enter_context(proxy(server.address))
        client = opened.enter_context(Client(network.address, resume_s=0))
        silent = [client.generate(max_tokens=ENDLESS) for _ in range(5)]
        for stream in silent:
            next(stream)
        network.fall_silent()
        more = struct.pack(">I", WIDEST - 65_535)
        deaf.send(frames.frame(frames.WINDOW_UPDATE, 0, 0, more))
        for stream_id in range(1, 101, 2):  # of 64 slots
            deaf.call(stream_id, request())
        expected = text(other)
        eventually("all are there", lambda: server.num_live() >= 50)
        eventually("none is left", lambda: server.num_live() == 0)
        assert deaf.is_closed.wait(frames.PATIENCE_S)
        assert text(other) == expected


def test_two_hundred_readers_of_a_byte_a_second_cost_little_and_spare_the_others(server: Replica) -> None:
    """Their texts are parked, and given up once nothing was taken for too long."""
    settings = {frames.INITIAL_WINDOW_SIZE: 512}
    before = stalled(server)
    with (
        ExitStack() as opened,
        proxy(server.address, bytes_per_s=1) as network,
        Client(server.address) as client,
    ):
        expected = text(client)
        server.forget_peak()
        peak = server.peak_bytes()
        for seed in range(NUM_SLOW):
            slow = opened.enter_context(closing(Connection(network.address, settings, reads=False)))
            assert slow.call(1, request(seed))
        is_parked = threading.Event()

        def watch() -> None:
            eventually("all are parked", lambda: parked(server) == NUM_SLOW)
            is_parked.set()
            eventually("all are given up", lambda: stalled(server) - before == NUM_SLOW)

        watching = threading.Thread(target=watch)
        watching.start()
        num_read = 0
        while watching.is_alive():
            assert text(client) == expected
            num_read += 1
        assert is_parked.is_set()
        assert num_read > 1
        eventually("none is left", lambda: server.num_live() == 0)
        grown = server.peak_bytes() - peak
        print(f"grown by {grown >> 10} KiB; {num_read} texts read beside them")
        assert grown < MAX_GROWTH_BYTES

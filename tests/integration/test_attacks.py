"""Connections that mean ill: the server stands, no larger, and others' texts are right meanwhile."""

from __future__ import annotations

import itertools
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from charrnn import Client
from charrnn._pb import charrnn_pb2 as pb
from tests import frames
from tests.frames import Connection, call_headers, frame, message
from tests.replicas import PATIENCE_S, Replica, eventually, replica

MAX_GROWTH_BYTES = 50 << 20
LENGTH = 3_000
MAX_CONNECTIONS = 10_000
HEADER_END = 4


@pytest.fixture(scope="module")
def server(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    with replica(tiny_bundle, tmp_path_factory.mktemp("attacked")) as found:
        yield found


def read(client: Client) -> str:
    return client.generate(max_tokens=LENGTH, seed=5).read()


@pytest.fixture(scope="module")
def expected(server: Replica) -> str:
    """The text that a client reads when nothing is wrong."""
    with Client(server.address) as client:
        return read(client)


def request(max_tokens: int = 1_000_000, prompt: str = "") -> bytes:
    asked = pb.GenerateRequest(prompt=prompt, stopping=pb.Stopping(max_tokens=max_tokens))
    return message(asked.SerializeToString())


def send_all(connection: Connection, data: bytes, times: int) -> None:
    """Sends until the other end has had enough."""
    for _ in range(times):
        if not connection.send(data):
            return


def calls(first: int, last: int, tail: Callable[[int], bytes]) -> Iterator[bytes]:
    """Calls that begin and go on with ``tail``, a hundred at a time."""
    block = call_headers()
    for start in range(first, last, 200):
        streams = range(start, start + 200, 2)
        yield b"".join(frame(frames.HEADERS, HEADER_END, i, block) + tail(i) for i in streams)


def flood(address: str, parts: Iterable[bytes]) -> None:
    """Sends until the server closes the connection, and says that it had enough if that still can be read."""
    with closing(Connection(address)) as connection:
        for part in parts:
            if not connection.send(part):
                break
        assert connection.is_closed.wait(PATIENCE_S)
        assert all(connection.goaway_codes())


def rapid_reset(address: str) -> None:
    reset = struct.pack(">I", frames.CANCEL)
    flood(address, calls(1, 200_000, lambda stream: frame(frames.RST_STREAM, 0, stream, reset)))


def made_you_reset(address: str) -> None:
    """Has the server reset its streams: a window of more than 2 GB is an error of the stream."""
    most = struct.pack(">I", 2**31 - 1)
    flood(address, calls(1, 200_000, lambda stream: frame(frames.WINDOW_UPDATE, 0, stream, most)))


def zero_increments(address: str) -> None:
    nothing = struct.pack(">I", 0)
    flood(address, calls(1, 200_000, lambda stream: frame(frames.WINDOW_UPDATE, 0, stream, nothing)))


def continuation_flood(address: str) -> None:
    head = frame(frames.HEADERS, 0, 1, call_headers())
    part = frame(frames.CONTINUATION, 0, 1, frames.literal(b"a", b"b" * 15_000))
    flood(address, itertools.chain([head], itertools.repeat(part, 20_000)))


def settings_flood(address: str) -> None:
    """Each wants an answer, which is not read."""
    part = frame(frames.SETTINGS, 0, 0, struct.pack(">HI", frames.INITIAL_WINDOW_SIZE, 99_999))
    unread(Connection(address, reads=False), part)


def ping_flood(address: str) -> None:
    unread(Connection(address, reads=False), frame(frames.PING, 0, 0, b"12345678"))


def unread(connection: Connection, part: bytes) -> None:
    """A hundred megabytes at most; the server need not take them."""
    connection._socket.settimeout(3)
    send_all(connection, part * 1_000, (100 << 20) // (1_000 * len(part)))
    connection.close()


def priority_flood(address: str) -> None:
    part = b"".join(frame(frames.PRIORITY, 0, i, struct.pack(">IB", 0, 1)) for i in range(1, 2_001, 2))
    with closing(Connection(address)) as connection:
        send_all(connection, part, 500)


def empty_data_flood(address: str) -> None:
    with closing(Connection(address)) as connection:
        connection.send(frame(frames.HEADERS, HEADER_END, 1, call_headers()))
        send_all(connection, frame(frames.DATA, 0, 1) * 1_000, 1_000)


def zero_window(address: str) -> None:
    """Texts that nobody can be told of."""
    with closing(Connection(address, {frames.INITIAL_WINDOW_SIZE: 0})) as connection:
        for stream in range(1, 401, 2):
            assert connection.call(stream, request())
        eventually("all are accepted", lambda: len(connection.of(frames.HEADERS)) == 200)


def long_headers(address: str) -> None:
    """A megabyte of headers, in more parts than any honest client makes."""
    flood(address, _in_parts(1, call_headers(more=[(b"long", b"x" * (1 << 20))])))


def long_header(address: str) -> None:
    """Twice what is taken: the call is refused, and the connection answers the next one."""
    with closing(Connection(address)) as connection:
        for part in _in_parts(1, call_headers(more=[(b"long", b"x" * 32_000)])):
            assert connection.send(part)
        assert_refused(connection)


def _in_parts(stream: int, block: bytes) -> Iterator[bytes]:
    """A block of headers, as HEADERS and CONTINUATIONs of 16 kB."""
    for start in range(0, len(block), 16_000):
        kind = frames.CONTINUATION if start else frames.HEADERS
        flags = HEADER_END if start + 16_000 >= len(block) else 0
        yield frame(kind, flags, stream, block[start : start + 16_000])


def header_bomb(address: str) -> None:
    """A header of 4 kB that the table keeps, said fifteen thousand times in a byte each."""
    # The newest entry of the table comes after 61 that are built in.
    block = frames.literal(b"bomb", b"x" * 3_900, is_indexed=True) + bytes([0x80 | 62]) * 15_000
    flood(address, _in_parts(1, call_headers() + block))


def assert_refused(connection: Connection) -> None:
    """The stream is, and the connection answers the next call."""
    eventually(
        "it is refused", lambda: connection.of(frames.HEADERS, 1) or connection.of(frames.RST_STREAM, 1)
    )
    connection.call(3, request(max_tokens=1))
    eventually("the next call is answered", lambda: connection.of(frames.DATA, 3))


def long_message(address: str) -> None:
    """Four gigabytes are announced; none of them is waited for."""
    with closing(Connection(address)) as connection:
        head = frame(frames.HEADERS, HEADER_END, 1, call_headers())
        connection.send(head + frame(frames.DATA, 0, 1, message(b"a" * 1_000, length=2**32 - 1)))
        assert_refused(connection)


def compressed_message(address: str) -> None:
    with closing(Connection(address)) as connection:
        connection.call(1, message(b"x", is_compressed=True), [(b"grpc-encoding", b"gzip")])
        assert_refused(connection)


def garbage(address: str) -> None:
    for preface in (b"\x16\x03\x01" + b"x" * 100, b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 100):
        with closing(Connection(address, preface=preface)) as connection:
            assert connection.is_closed.wait(PATIENCE_S)


def half_prefaces(address: str) -> None:
    """Connections that begin to say something: the server does not wait for ever."""
    host, port = address.split(":")
    sockets = [socket.create_connection((host, int(port))) for _ in range(300)]
    for item in sockets:
        item.settimeout(PATIENCE_S)
        item.sendall(frames.PREFACE[:10])
    for item in sockets:
        while item.recv(1_000):
            pass
        item.close()


ATTACKS = [
    rapid_reset,
    made_you_reset,
    zero_increments,
    continuation_flood,
    settings_flood,
    ping_flood,
    priority_flood,
    empty_data_flood,
    zero_window,
    long_headers,
    long_header,
    header_bomb,
    long_message,
    compressed_message,
    garbage,
    half_prefaces,
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_another_clients_texts_are_right_and_memory_stays(
    server: Replica, expected: str, attack: Callable[[str], None]
) -> None:
    problems: list[BaseException] = []

    def run() -> None:
        try:
            attack(server.address)
        except BaseException as problem:
            problems.append(problem)

    server.forget_peak()
    before = server.peak_bytes()
    thread = threading.Thread(target=run)
    with Client(server.address) as client:
        thread.start()
        while thread.is_alive():
            assert read(client) == expected
        thread.join()
        assert read(client) == expected
    if problems:
        raise problems[0]
    eventually("no text is left", lambda: server.num_live() == 0)
    assert server.process.poll() is None
    grown = server.peak_bytes() - before
    print(f"grown by {grown >> 10} KiB")
    assert grown < MAX_GROWTH_BYTES


def test_ten_thousand_idle_connections_and_no_more(tiny_bundle: Path, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < MAX_CONNECTIONS + 500:
        pytest.skip(f"only {hard} open files are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with replica(tiny_bundle, tmp_path) as server, Client(server.address) as client:
            _idle_connections(server, client)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _idle_connections(server: Replica, client: Client) -> None:
    expected = read(client)
    open_files = Path(f"/proc/{server.process.pid}/fd")
    num_before, before = len(list(open_files.iterdir())), server.peak_bytes()
    host, port = server.address.split(":")
    idle = []
    for _ in range(MAX_CONNECTIONS + 50):  # those beyond the cap wait in the system's queue
        idle.append(socket.create_connection((host, int(port))))
        idle[-1].sendall(frames.PREFACE + frame(frames.SETTINGS))
    eventually(
        "all that may be are open",
        lambda: len(list(open_files.iterdir())) >= num_before + MAX_CONNECTIONS - 1,
    )
    assert read(client) == expected
    grown = server.peak_bytes() - before
    print(f"{grown / MAX_CONNECTIONS / 1024:.1f} KiB a connection")
    assert grown < 32 * 1024 * MAX_CONNECTIONS
    assert len(list(open_files.iterdir())) <= num_before + MAX_CONNECTIONS
    used = server.cpu_s()
    time.sleep(2)
    print(f"{(server.cpu_s() - used) / 2:.2f} cores while they are idle")
    for item in idle:
        item.close()
    with Client(server.address) as another:
        assert read(another) == expected
    eventually("none is left", lambda: len(list(open_files.iterdir())) < num_before + 50)


def test_without_file_descriptors_it_serves_the_connections_it_has(tiny_bundle: Path, tmp_path: Path) -> None:
    with replica(tiny_bundle, tmp_path, max_files=64) as server, Client(server.address) as client:
        expected = read(client)
        host, port = server.address.split(":")
        idle = [socket.create_connection((host, int(port))) for _ in range(200)]
        for item in idle:
            item.sendall(frames.PREFACE + frame(frames.SETTINGS))
        open_files = Path(f"/proc/{server.process.pid}/fd")
        eventually("it has no more to give", lambda: len(list(open_files.iterdir())) >= 64)
        used = server.cpu_s()
        time.sleep(2)
        assert server.cpu_s() - used < 1, "it tries again and again"
        assert read(client) == expected
        for item in idle:
            item.close()
        with Client(server.address) as another:
            assert read(another) == expected

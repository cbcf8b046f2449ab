"""HTTP/2 written by hand, for what no well-behaved library sends."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterable

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    *range(5),
    *range(6, 10),
)
END_STREAM, ACK, END_HEADERS = 1, 1, 4
CANCEL, ENHANCE_YOUR_CALM = 8, 11
INITIAL_WINDOW_SIZE = 4

PATIENCE_S = 120

Header = tuple[bytes, bytes]


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _string(text: bytes) -> bytes:
    """A string of HPACK, not compressed; its length is an integer that begins with 7 bits."""
    if len(text) < 127:
        return bytes([len(text)]) + text
    rest, octets = len(text) - 127, [127]
    while rest >= 128:
        octets.append(rest % 128 + 128)
        rest //= 128
    return bytes([*octets, rest]) + text


def literal(name: bytes, value: bytes, *, is_indexed: bool = False) -> bytes:
    """A header by name and value, which the table of the connection keeps or does not."""
    return (b"\x40" if is_indexed else b"\x00") + _string(name) + _string(value)


def call_headers(method: str = "Generate", more: Iterable[Header] = ()) -> bytes:
    """The header block of a call."""
    fields: list[Header] = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", f"/charrnn.v1.CharRnn/{method}".encode()),
        (b":authority", b"127.0.0.1"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        *more,
    ]
    return b"".join(literal(name, value) for name, value in fields)


def message(payload: bytes, *, is_compressed: bool = False, length: int | None = None) -> bytes:
    """A message of gRPC, which may lie about its length."""
    return struct.pack(">BI", is_compressed, len(payload) if length is None else length) + payload


class Connection:
    """A connection whose answers a thread reads; ``is_closed`` once the other end has.

    Args:
        settings: what the first SETTINGS frame says.
        reads: whether anything is read at all.
    """

    def __init__(
        self,
        address: str,
        settings: dict[int, int] | None = None,
        *,
        preface: bytes = PREFACE,
        reads: bool = True,
    ) -> None:
        host, port = address.rsplit(":", 1)
        self._socket = socket.create_connection((host, int(port)))
        self._socket.settimeout(PATIENCE_S)
        self._lock = threading.Lock()
        self.problem: Exception | None = None
        self.is_closed = threading.Event()
        self.seen: list[tuple[int, int, int, bytes]] = []
        self._reader = threading.Thread(target=self._read_all, daemon=True)
        values = b"".join(struct.pack(">HI", *item) for item in (settings or {}).items())
        self.send(preface + (frame(SETTINGS, 0, 0, values) if preface == PREFACE else b""))
        # It answers SETTINGS, which must not go out before the preface.
        if reads:
            self._reader.start()

    def send(self, data: bytes) -> bool:
        """Whether it went out: not if the other end is gone, or takes nothing more."""
        try:
            with self._lock:
                self._socket.sendall(data)
        except OSError as problem:
            self.problem = problem
            return False
        return not self.is_closed.is_set()

    def call(self, stream: int, request: bytes, more: Iterable[Header] = ()) -> bool:
        """A whole call with one message."""
        head = frame(HEADERS, END_HEADERS, stream, call_headers(more=more))
        return self.send(head + frame(DATA, END_STREAM, stream, request))

    def of(self, kind: int, stream: int | None = None) -> list[bytes]:
        """The payloads of such frames so far."""
        return [payload for seen, _, of, payload in list(self.seen) if seen == kind and stream in (None, of)]

    def goaway_codes(self) -> list[int]:
        return [struct.unpack(">I", payload[4:8])[0] for payload in self.of(GOAWAY)]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        if self._reader.is_alive():
            self._reader.join(PATIENCE_S)

    def _read_all(self) -> None:
        try:
            with self._socket.makefile("rb") as file:
                while head := file.read(9):
                    (length,) = struct.unpack(">I", b"\0" + head[:3])
                    kind, flags, stream = struct.unpack(">BBI", head[3:])
                    payload = file.read(length)
                    self.seen.append((kind, flags, stream, payload if kind != PING else b""))
                    if kind == SETTINGS and not flags & ACK:
                        self.send(frame(SETTINGS, ACK))
        except (OSError, struct.error, ValueError) as problem:
            self.problem = problem
        self.is_closed.set()

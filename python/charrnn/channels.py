"""Connections to one server: as many as its streams need, made when they are needed.

Knows gRPC channels, not what is said over them.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

import grpc

from charrnn.errors import CharrnnError

STREAMS_PER_CHANNEL = 100
"""Streams at once on one connection; servers commonly allow no more on one HTTP/2 connection."""


@dataclass
class _Connection:
    """One channel, and how many streams are on it."""

    channel: grpc.Channel
    num_live: int = 0


class Channels:
    """Channels to ``address``: one, and one more whenever all carry their hundred streams."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._connections: list[_Connection] = []
        self._is_closed = False
        self._pid = os.getpid()
        # Reentrant: garbage collection may release a stream while this thread leases for another.
        self._lock = threading.RLock()

    def lease(self) -> grpc.Channel:
        """A channel with room for one more stream; hand it back with ``release``.

        Raises:
            CharrnnError: after ``close``, or in a process forked after this object was made.
        """
        if self._pid != os.getpid():
            raise CharrnnError("a client does not survive a fork: make one in the child process")
        with self._lock:
            if self._is_closed:
                raise CharrnnError("the client is closed")
            connection = self._with_room()
            connection.num_live += 1
            return connection.channel

    def release(self, channel: grpc.Channel) -> None:
        """The stream on ``channel`` has ended."""
        with self._lock:
            for connection in self._connections:
                connection.num_live -= connection.channel is channel

    def close(self) -> None:
        """Close every channel; what runs on them ends as cancelled."""
        with self._lock:
            self._is_closed = True
            connections, self._connections = self._connections, []
        for connection in connections:
            connection.channel.close()

    def _with_room(self) -> _Connection:
        for connection in self._connections:
            if connection.num_live < STREAMS_PER_CHANNEL:
                return connection
        connection = _Connection(grpc.insecure_channel(self._address, options=_options(self._address)))
        self._connections.append(connection)
        return connection


def _options(address: str) -> list[tuple[str, str | int]]:
    host = address.rpartition(":")[0].strip("[]")
    is_local = host in ("localhost", "::1") or host.startswith("127.")
    return [
        # A name with several addresses would otherwise be sent as an authority that HTTP/2 servers reset.
        ("grpc.default_authority", address),
        # Without it, channels to one address share one connection.
        ("grpc.use_local_subchannel_pool", 1),
        # The default grows to two minutes, in which a server that is back is not tried.
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # A proxy set for the web would be asked to reach this machine.
        ("grpc.enable_http_proxy", 0 if is_local else 1),
    ]

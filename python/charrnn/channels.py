"""Connections to one server: as many as its streams need, made when they are needed.

Knows gRPC channels, not what is said over them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from charrnn.errors import CharrnnError

STREAMS_PER_CHANNEL = 100
"""Streams at once on one connection; servers commonly allow no more on one HTTP/2 connection."""

Channel = TypeVar("Channel")


@dataclass
class _Connection(Generic[Channel]):
    """One channel, and how many streams are on it."""

    channel: Channel
    num_live: int = 0


class Channels(Generic[Channel]):
    """Channels that ``connect`` makes: one, and one more whenever all carry their hundred streams."""

    def __init__(self, connect: Callable[[], Channel]) -> None:
        self._connect = connect
        self._connections: list[_Connection[Channel]] = []
        self._is_closed = False
        self._pid = os.getpid()
        # Reentrant: garbage collection may release a stream while this thread leases for another.
        self._lock = threading.RLock()

    def lease(self) -> Channel:
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

    def release(self, channel: Channel) -> None:
        """The stream on ``channel`` has ended."""
        with self._lock:
            for connection in self._connections:
                connection.num_live -= connection.channel is channel

    def close(self) -> list[Channel]:
        """Lease no more. Close the channels that this gives: what runs on them ends as cancelled."""
        with self._lock:
            self._is_closed = True
            connections, self._connections = self._connections, []
        return [connection.channel for connection in connections]

    def _with_room(self) -> _Connection[Channel]:
        for connection in self._connections:
            if connection.num_live < STREAMS_PER_CHANNEL:
                return connection
        self._connections.append(_Connection(self._connect()))
        return self._connections[-1]

"""A proxy of TCP that stands for bad networks: one that falls silent, one that lets few bytes through."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Iterator

SMALL_BUFFER = 2_048


class Proxy:
    """Passes on what comes; see ``proxy``."""

    def __init__(self, target: str, bytes_per_s: int | None) -> None:
        host, port = target.rsplit(":", 1)
        self._target, self._bytes_per_s = (host, int(port)), bytes_per_s
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._to: dict[socket.socket, socket.socket] = {}
        self._answers: list[socket.socket] = []
        self._selector = selectors.DefaultSelector()
        self._is_silent, self._is_over = threading.Event(), threading.Event()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self.address = "{}:{}".format(*self._listener.getsockname())
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def fall_silent(self) -> None:
        """From now on nothing passes, and both ends are left to wonder."""
        self._is_silent.set()

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()
        for end in (self._listener, *self._to):
            end.close()

    def _run(self) -> None:
        next_at = time.monotonic()
        while not self._is_over.is_set():
            ready = [key.fileobj for key, _ in self._selector.select(timeout=0.05)]
            for end in ready if not self._is_silent.is_set() else ():
                assert isinstance(end, socket.socket)
                self._connect() if end is self._listener else self._pass_on(end, 65_536)
            if self._is_silent.is_set():
                time.sleep(0.05)
            elif self._bytes_per_s is not None and time.monotonic() >= next_at:
                next_at = time.monotonic() + 1
                for end in list(self._answers):
                    self._pass_on(end, self._bytes_per_s)

    def _connect(self) -> None:
        client, _ = self._listener.accept()
        server = socket.socket()
        if self._bytes_per_s is not None:
            # Or the system takes megabytes that nobody has read.
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        server.connect(self._target)
        self._to |= {client: server, server: client}
        self._selector.register(client, selectors.EVENT_READ)
        if self._bytes_per_s is None:
            self._selector.register(server, selectors.EVENT_READ)
        else:
            self._answers.append(server)

    def _pass_on(self, end: socket.socket, num_bytes: int) -> None:
        """Some of what one end has said; if it is gone, so is the other."""
        try:
            self._to[end].sendall(data := end.recv(num_bytes, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            for one in (end, self._to[end]):
                with contextlib.suppress(KeyError, ValueError):
                    self._selector.unregister(one)
                with contextlib.suppress(ValueError):
                    self._answers.remove(one)
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def proxy(target: str, *, bytes_per_s: int | None = None) -> Iterator[Proxy]:
    """A proxy before ``target``, which lets so many bytes of each connection's answers through a second."""
    made = Proxy(target, bytes_per_s)
    try:
        yield made
    finally:
        made.close()

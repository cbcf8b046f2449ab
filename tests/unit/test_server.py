"""Where a server may listen, and what SIGHUP asks of it."""

from __future__ import annotations

import signal

import pytest

from charrnn import _native, server
from charrnn.errors import RequestError
from charrnn.server import check_listen, hangups, serve


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.8.9.1:65535", "localhost:1", "[::1]:50051"])
def test_this_machine_may_connect(address: str) -> None:
    check_listen(address, may_leave=False)


@pytest.mark.parametrize(
    "address", ["0.0.0.0:1", "10.1.2.3:1", "[::]:1", "example.org:1", "127.0.0.1.example.org:1"]
)
def test_other_machines_only_when_told(address: str) -> None:
    with pytest.raises(RequestError, match="--insecure"):
        check_listen(address, may_leave=False)
    check_listen(address, may_leave=True)


def test_the_address_of_metrics_is_held_to_the_same_and_named() -> None:
    with pytest.raises(RequestError, match=r"metrics address .*0:1.*--insecure"):
        serve([], metrics="0.0.0.0:1")


@pytest.mark.parametrize(
    "address", ["", "1", ":1", "localhost:", "localhost:65536", "localhost:-1", "localhost:²"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(RequestError, match="not host:port"):
        check_listen(address, may_leave=True)


def test_a_terminal_is_gone_once_also_when_that_is_said_again_after_the_server_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    had, told = iter([True]), list[int]()
    monkeypatch.setattr(server, "_has_terminal", lambda: next(had, False))
    before = signal.signal(signal.SIGHUP, lambda number, frame: told.append(number))
    try:
        with hangups(_native.Reload()):
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert told == [signal.SIGHUP]

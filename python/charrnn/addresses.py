"""Where a server is: ``host:port``."""

from __future__ import annotations

from charrnn.errors import RequestError


def check_address(address: str) -> str:
    """``address`` if it is ``host:port``.

    Raises:
        RequestError: anything else, with what is wrong.
    """
    host, separator, port = address.rpartition(":")
    is_port = port.isascii() and port.isdigit() and 0 < int(port) < 65536
    is_host = host and not set(host) & set("/@, \t\n") and (":" not in host or host[0] + host[-1] == "[]")
    if not (separator and is_host and is_port):
        raise RequestError(f"server address {address!r} is not host:port, such as 127.0.0.1:50051")
    return address

"""Where a server is, ``host:port``, and what may be sent there."""

from __future__ import annotations

import ipaddress

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


def is_loopback(address: str) -> bool:
    """Whether ``host:port`` is of this machine, and of no other by any name service's word."""
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_token(token: str | None, address: str, *, may_be_read: bool) -> None:
    """Refuse a token that no header can carry, or that would go unencrypted to another machine.

    Raises:
        RequestError: says which; never the token.
    """
    if token is None:
        return
    if not (token and token.isascii() and token.isprintable() and " " not in token):
        raise RequestError("the token is empty or has characters that no header may have")
    if not (may_be_read or is_loopback(address)):
        raise RequestError(
            f"the token would go to {address} unencrypted; give tls or ca, or insecure (--insecure) if the "
            "way there is safe"
        )

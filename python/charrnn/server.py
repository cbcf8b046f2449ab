"""Serving bundles over gRPC from this process.

Knows where it may listen and which library to load; connections, decoding and draining are the Rust server's.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Sequence

from charrnn import _native
from charrnn.engine import find_onnxruntime
from charrnn.errors import RequestError
from charrnn.sampler import refusing_overflow

DEFAULT_LISTEN = "127.0.0.1:50051"


def serve(
    bundles: Sequence[str | os.PathLike[str]],
    *,
    listen: str = DEFAULT_LISTEN,
    metrics: str | None = None,
    insecure: bool = False,
    workers: int | None = None,
    max_streams: int = 64,
    max_queue: int = 1024,
    precision: str | None = None,
    drain_timeout_s: float = 30.0,
    on_ready: Callable[[str], None] = lambda address: None,
    on_metrics: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve until Ctrl-C or SIGTERM; then finish the texts under way, at most ``drain_timeout_s`` seconds.

    A second signal ends it at once. Call it from the main thread: signals arrive there.

    Args:
        listen: ``host:port``; port 0 takes a free one.
        metrics: the same for Prometheus' ``/metrics`` and for ``/healthz``, over plain HTTP; ``None`` is off.
        insecure: allow an address that other machines can reach; nothing is encrypted or authenticated.
        workers: decode threads; ``None`` takes one for each core.
        max_streams: texts decoded at once by each worker.
        max_queue: texts that may wait; one more is refused at once.
        precision: ``"int8"`` or ``"fp32"``; ``None`` takes int8 where the bundle has it.
        on_ready: called once, with the real address, when requests are answered.
        on_metrics: called right after, with the real address of ``metrics``, if there is one.

    Raises:
        RequestError: an address that cannot be listened on as asked.
        BundleError: a bundle that cannot be opened.
        CharrnnError: the port is in use.
    """
    check_listen(listen, insecure=insecure)
    if metrics is not None:
        check_listen(metrics, insecure=insecure, name="metrics")

    def ready(address: str, metrics_address: str | None) -> None:
        on_ready(address)
        if metrics_address is not None:
            on_metrics(metrics_address)

    with refusing_overflow():
        _native.serve(
            bundles=bundles,
            onnxruntime=find_onnxruntime(),
            listen=listen,
            metrics=metrics,
            workers=workers,
            max_streams=max_streams,
            max_queue=max_queue,
            precision=precision,
            drain_timeout_s=drain_timeout_s,
            on_ready=ready,
        )


def check_listen(address: str, *, insecure: bool, name: str = "listen") -> None:
    """Refuse an address that is no ``host:port``, or that other machines reach unless ``insecure``.

    Raises:
        RequestError: says which of the two.
    """
    host, separator, port = address.rpartition(":")
    if not (separator and host and port.isascii() and port.isdigit() and int(port) < 65536):
        raise RequestError(f"{name} address {address!r} is not host:port with a port of 0 to 65535")
    if not insecure and not _is_loopback(host):
        raise RequestError(
            f"{name} address {address!r} can be reached from other machines, and charrnn has no TLS yet; "
            "listen on 127.0.0.1 behind a proxy that has, or give --insecure (insecure=True)"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False

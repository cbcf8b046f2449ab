"""Serving bundles over gRPC from this process.

Knows where it may listen, which library to load and what SIGHUP asks for; connections, decoding and
draining are the Rust server's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Literal

from charrnn import _native
from charrnn.addresses import is_loopback
from charrnn.engine import find_onnxruntime
from charrnn.errors import RequestError
from charrnn.sampler import refusing_overflow

DEFAULT_LISTEN = "127.0.0.1:50051"

LogLevel = Literal["debug", "info", "warn", "error", "off"]


def serve(
    bundles: Sequence[str | os.PathLike[str]],
    *,
    listen: str = DEFAULT_LISTEN,
    metrics: str | None = None,
    admin: str | None = None,
    insecure: bool = False,
    tls_cert: str | os.PathLike[str] | None = None,
    tls_key: str | os.PathLike[str] | None = None,
    client_ca: str | os.PathLike[str] | None = None,
    token_file: str | os.PathLike[str] | None = None,
    max_streams_per_client: int | None = None,
    resume_key_file: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    max_streams: int = 64,
    max_queue: int = 1024,
    prompt_cache_bytes: int = 64 << 20,
    device: str = "cpu",
    precision: str | None = None,
    drain_timeout_s: float = 30.0,
    log_format: Literal["text", "json"] | None = None,
    log_level: LogLevel = "info",
    log_requests: bool = False,
    on_ready: Callable[[str], None] = lambda address: None,
    on_metrics: Callable[[str], None] = lambda address: None,
    on_admin: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve until Ctrl-C or SIGTERM; then finish the texts under way, at most ``drain_timeout_s`` seconds.

    A second signal ends it at once; SIGHUP reads certificates and tokens again, and loads what has changed
    in the folders of the models, while texts go on. Call it from the main thread: signals arrive there.

    Args:
        listen: ``host:port``; port 0 takes a free one.
        metrics: the same for Prometheus' ``/metrics`` and for ``/healthz``, over HTTP/1.1; ``None`` is off.
        admin: the same for ``charrnn.admin``, on this machine only: it loads any folder it is told to.
        insecure: allow an address that other machines can reach though not everything is encrypted and
            authenticated.
        tls_cert: PEM file of this server's certificate and those up to its authority; what other machines may
            reach is encrypted.
        tls_key: PEM file of its private key, which nobody else may read.
        client_ca: PEM file of authorities; only clients with a certificate of theirs connect. ``/healthz``
            asks for none.
        token_file: tokens, ``name:token`` or ``token`` a line, one of which every request brings as
            ``authorization: Bearer TOKEN``, but for gRPC's health check and ``/healthz``.
        max_streams_per_client: texts that one client may have under way. A client is who has a token's name,
            else a certificate, else an address.
        resume_key_file: 32 bytes or more that nobody else may read, the same for servers that go on with each
            other's texts by their resume tokens; ``None`` takes a key that no other server has.
        workers: decode threads; ``None`` takes one for each core.
        max_streams: texts decoded at once by each worker.
        max_queue: texts that may wait; one more is refused at once.
        prompt_cache_bytes: room for each model's states after prompts read before, which are not read again.
        device: ``"cpu"``, or ``"cuda"`` and ``"cuda:N"`` for an NVIDIA GPU, which computes fp32 only.
        precision: ``"int8"`` or ``"fp32"``; ``None`` takes int8 where the bundle and the device have it.
        log_format: what happens is told on stderr, for people or as JSON; ``None`` tells nothing. A process
            tells as its first server does.
        log_level: the least that is told.
        log_requests: tell also of each text that is over; never what it or its prompt says.
        on_ready: called once, with the real address, when requests are answered.
        on_metrics: called right after, with the real address of ``metrics``, if there is one.
        on_admin: the same for ``admin``.

    Raises:
        RequestError: an address that cannot be listened on as asked, or options that need another.
        ConfigError: a certificate, key or list of tokens that is not right, an address that is taken, or a
            device that cannot be used.
        BundleError: a bundle that cannot be opened.
        EngineError: a decode thread panicked twice.
    """
    check_files(tls_cert, tls_key, client_ca)
    may_leave = insecure or (tls_cert is not None and (client_ca is not None or token_file is not None))
    check_listen(listen, may_leave=may_leave)
    if metrics is not None:
        check_listen(metrics, may_leave=may_leave, name="metrics")
    if admin is not None:
        _check_admin(admin)
    reload = _native.Reload()
    pair = None if tls_cert is None or tls_key is None else (tls_cert, tls_key)

    def ready(address: str, metrics_address: str | None, admin_address: str | None) -> None:
        on_ready(address)
        if metrics_address is not None:
            on_metrics(metrics_address)
        if admin_address is not None:
            on_admin(admin_address)

    with refusing_overflow(), hangups(reload):
        _native.serve(
            bundles=bundles,
            onnxruntime=find_onnxruntime(),
            listen=listen,
            metrics=metrics,
            admin=admin,
            resume_key_file=resume_key_file,
            workers=workers,
            max_streams=max_streams,
            max_queue=max_queue,
            prompt_cache_bytes=prompt_cache_bytes,
            device=device,
            precision=precision,
            drain_timeout_s=drain_timeout_s,
            access=(pair, client_ca, token_file, max_streams_per_client),
            logging=None if log_format is None else (log_format, log_level, log_requests),
            reload=reload,
            on_ready=ready,
        )


@contextlib.contextmanager
def hangups(reload: _native.Reload) -> Iterator[None]:
    """Takes SIGHUP for the wish that files be read again, unless it says that the terminal is gone."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    before, had_terminal = signal.getsignal(signal.SIGHUP), _has_terminal()
    is_gone = False

    def on_hangup(number: int, frame: FrameType | None) -> None:
        nonlocal is_gone
        if is_gone:
            return  # a terminal goes once, however often that is said: nobody has grown impatient
        if had_terminal and callable(before) and not _has_terminal():
            is_gone = True
            before(number, frame)
        else:
            reload.trigger()

    signal.signal(signal.SIGHUP, on_hangup)
    try:
        yield
    finally:
        if not is_gone:  # what says it again may come after the server has ended
            signal.signal(signal.SIGHUP, before)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError:
        return False
    return True


def check_files(tls_cert: object, tls_key: object, client_ca: object) -> None:
    """Refuse half of a pair, and a wish for certificates without one to show.

    Raises:
        RequestError: says what is missing.
    """
    if (tls_cert is None) != (tls_key is None):
        raise RequestError("tls_cert and tls_key go together (--tls-cert, --tls-key); give both")
    if client_ca is not None and tls_cert is None:
        raise RequestError("client_ca needs tls_cert and tls_key (--client-ca, --tls-cert, --tls-key)")


def _check_admin(address: str) -> None:
    check_listen(address, may_leave=True, name="admin")
    if not is_loopback(address):
        raise RequestError(
            f"admin address {address!r} can be reached from other machines, and whoever reaches it may load "
            "any folder and end the server; listen on 127.0.0.1"
        )


def check_listen(address: str, *, may_leave: bool, name: str = "listen") -> None:
    """Refuse an address that is no ``host:port``, or that other machines reach unless it ``may_leave``.

    Raises:
        RequestError: says which of the two.
    """
    host, separator, port = address.rpartition(":")
    if not (separator and host and port.isascii() and port.isdigit() and int(port) < 65536):
        raise RequestError(f"{name} address {address!r} is not host:port with a port of 0 to 65535")
    if not may_leave and not is_loopback(address):
        raise RequestError(
            f"{name} address {address!r} can be reached from other machines; encrypt and authenticate with "
            "--tls-cert, --tls-key and --token-file or --client-ca, or give --insecure (insecure=True)"
        )

"""How a client is let in: encryption, and the token it is known by; the channels that have both.

Knows how gRPC is told; what TLS is, and what went wrong with it, is ``charrnn.tls``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypedDict

import grpc
import grpc.aio

from charrnn.addresses import check_token
from charrnn.tls import Tls

Options = Sequence[tuple[str, str | int]]


class ConnectionFields(TypedDict, total=False):
    """What clients take by keyword to be let in.

    ``tls``: encrypt, and trust the system's authorities. ``ca``: PEM file of authorities to trust in their
    place. ``cert`` and ``key``: PEM files of this client's certificate, for servers that want one.
    ``server_name``: the name in the server's certificate, where it is not the host of the address. ``token``:
    what the server knows this client by; sent with every call. ``insecure``: send it to another machine even
    where anybody on the way can read it.
    """

    tls: bool
    ca: str | None
    cert: str | None
    key: str | None
    server_name: str | None
    token: str | None
    insecure: bool


@dataclass(frozen=True)
class Access:
    """What a client encrypts with and is known by; neither by default."""

    tls: Tls | None = None
    token: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, address: str, fields: ConnectionFields) -> Access:
        """As the keywords of a client say.

        Raises:
            TypeError: a keyword that there is not.
            RequestError: half of a pair of files, or a token that would be readable on its way.
            ConfigError: a file that is not what it should be.
        """
        given: dict[str, Any] = dict(fields)
        token, insecure = given.pop("token", None), given.pop("insecure", False)
        tls = Tls.asked(**given)
        check_token(token, address, may_be_read=insecure or tls is not None)
        return cls(tls, token)

    def options(self, address: str) -> Options:
        """Of every channel."""
        name = self.tls.server_name if self.tls else None
        # A name with several addresses would otherwise be sent as an authority that HTTP/2 servers reset.
        authority = ("grpc.default_authority", name or address)
        return [authority, ("grpc.ssl_target_name_override", name)] if name else [authority]

    def connect(self, address: str, options: Options) -> grpc.Channel:
        """A channel for threads."""
        if (credentials := self._credentials()) is not None:
            return grpc.secure_channel(address, credentials, options=options)
        channel = grpc.insecure_channel(address, options=options)
        return channel if self.token is None else grpc.intercept_channel(channel, _Signing(self.token))

    def connect_aio(self, address: str, options: Options, interceptors: Sequence[Any]) -> grpc.aio.Channel:
        """A channel for asyncio."""
        if (credentials := self._credentials()) is not None:
            return grpc.aio.secure_channel(address, credentials, options=options, interceptors=interceptors)
        signing = [] if self.token is None else [kind(self.token) for kind in _AIO_SIGNING]
        return grpc.aio.insecure_channel(address, options=options, interceptors=[*interceptors, *signing])

    def _credentials(self) -> grpc.ChannelCredentials | None:
        if self.tls is None:
            return None
        credentials = grpc.ssl_channel_credentials(*self.tls.pem())
        if self.token is None:
            return credentials
        token = grpc.access_token_call_credentials(self.token)
        return grpc.composite_channel_credentials(credentials, token)


EVERYBODY = Access()


def _signature(token: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {token}")


class _Details(NamedTuple):
    """What an interceptor may say of a call."""

    method: str
    timeout: float | None
    metadata: Sequence[tuple[str, str | bytes]] | None
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Signing(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[misc]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[misc]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[misc]
    grpc.StreamStreamClientInterceptor,  # type: ignore[misc]
):
    """Signs every call. gRPC's own credentials of calls want TLS, which a server on this machine may lack."""

    def __init__(self, token: str) -> None:
        self._signature = _signature(token)

    def _signed(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        signed = _Details(
            details.method,
            details.timeout,
            [*(details.metadata or ()), self._signature],
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )
        return continuation(signed, request)

    intercept_unary_unary = intercept_unary_stream = _signed
    intercept_stream_unary = intercept_stream_stream = _signed


class _AioSigner:
    """The same for asyncio, where an interceptor can be of one kind only."""

    def __init__(self, token: str) -> None:
        self._signature = _signature(token)

    async def _signed(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        metadata = grpc.aio.Metadata(*(details.metadata or ()), self._signature)
        return await continuation(details._replace(metadata=metadata), request)


class _UnaryUnary(_AioSigner, grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    intercept_unary_unary = _AioSigner._signed


class _UnaryStream(_AioSigner, grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[misc]
    intercept_unary_stream = _AioSigner._signed


class _StreamUnary(_AioSigner, grpc.aio.StreamUnaryClientInterceptor):  # type: ignore[misc]
    intercept_stream_unary = _AioSigner._signed


class _StreamStream(_AioSigner, grpc.aio.StreamStreamClientInterceptor):  # type: ignore[misc]
    intercept_stream_stream = _AioSigner._signed


_AIO_SIGNING = (_UnaryUnary, _UnaryStream, _StreamUnary, _StreamStream)

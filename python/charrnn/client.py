"""The face of a charrnn server: texts as streams, over gRPC.

Knows the service and nothing of models: what may be asked is the server's to say.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Unpack

import grpc

from charrnn._pb import charrnn_pb2 as pb
from charrnn.addresses import check_address
from charrnn.channels import Channels
from charrnn.errors import (
    CharrnnError,
    RequestError,
    ServerBusyError,
    ServerError,
    ServerUnavailableError,
)
from charrnn.resuming import Text
from charrnn.sampler import SamplingFields, SamplingParams
from charrnn.stream import Event, Finished, Stream
from charrnn.wire import Model, to_fields, to_model, to_request

__all__ = ["Client", "Model"]

ERRORS: dict[grpc.StatusCode, type[CharrnnError]] = {
    grpc.StatusCode.CANCELLED: ServerError,
    grpc.StatusCode.UNKNOWN: ServerError,
    grpc.StatusCode.INVALID_ARGUMENT: RequestError,
    grpc.StatusCode.DEADLINE_EXCEEDED: ServerError,
    grpc.StatusCode.NOT_FOUND: RequestError,
    grpc.StatusCode.ALREADY_EXISTS: ServerError,
    grpc.StatusCode.PERMISSION_DENIED: ServerError,
    grpc.StatusCode.UNAUTHENTICATED: ServerError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ServerBusyError,
    grpc.StatusCode.FAILED_PRECONDITION: ServerError,
    grpc.StatusCode.ABORTED: ServerError,
    grpc.StatusCode.OUT_OF_RANGE: ServerError,
    grpc.StatusCode.UNIMPLEMENTED: ServerError,
    grpc.StatusCode.INTERNAL: ServerError,
    grpc.StatusCode.UNAVAILABLE: ServerUnavailableError,
    grpc.StatusCode.DATA_LOSS: ServerError,
}

# A year: gRPC takes what overflows its clock for a time that has passed.
MAX_TIMEOUT_S = 366 * 86_400.0

# What gRPC says when it never reached a server, as against a server that says it is stopping.
_NOT_REACHED = (
    "failed to connect",
    "errors resolving",
    "dns resolution failed",
    "name resolution",
    "connections to all backends",
)


class Client:
    """Texts from the server at ``address``.

    No connection is made before the first call, and a lost one is made again. Any number of streams may be
    read at once and from several threads; for each further hundred another connection is opened.

    Args:
        address: ``host:port``.
        timeout: seconds that a call may take from its start to its end; ``None`` waits as long as it takes.
        resume_s: seconds for which a text that has begun and lost its server is asked for again, with the
            same seed; what was read already is checked and left out, so that a reader notices nothing.

    Raises:
        RequestError: an address that is no ``host:port``, or a time that is none.

    Example:
        >>> with Client("127.0.0.1:50051") as client:  # doctest: +SKIP
        ...     for chunk in client.generate("ROMEO:", max_tokens=200):
        ...         print(chunk.text, end="", flush=True)
    """

    def __init__(self, address: str, *, timeout: float | None = None, resume_s: float = 10.0) -> None:
        if timeout is not None and not 0 < timeout <= MAX_TIMEOUT_S:
            raise RequestError(
                f"timeout is {timeout:g} s; it must be above 0 and at most {MAX_TIMEOUT_S:g}, or None"
            )
        if not 0 <= resume_s <= MAX_TIMEOUT_S:
            raise RequestError(f"resume_s is {resume_s:g}; it must be 0 to {MAX_TIMEOUT_S:g} seconds")
        self._address = check_address(address)
        self._timeout, self._resume_s = timeout, resume_s
        self._channels = Channels(self._address)

    def generate(
        self,
        prompt: str = "",
        params: SamplingParams | None = None,
        *,
        model: str = "",
        sample_index: int = 0,
        chunk_chars: int | None = None,
        max_chunk_delay_ms: int | None = None,
        **sampling: Unpack[SamplingFields],
    ) -> Stream:
        """Ask for one text. Returns at once: what the server refuses is raised by the first read.

        Args:
            prompt: what the model reads first; not part of the text.
            params: or its fields as keywords: ``temperature``, ``seed``, ``max_tokens``, ``stop``...
            model: name of the model; may be empty when the server holds one.
            sample_index: which of several samples of one prompt and seed.
            chunk_chars: characters a chunk holds before it is sent; default 16.
            max_chunk_delay_ms: longest wait of a character for its chunk; absent, 10 ms and more under load.

        Raises:
            RequestError: a parameter out of its limits; on reading also an unknown model or character.
            ServerBusyError, ServerUnavailableError, ServerError: on reading.
        """
        output = {"chunk_chars": chunk_chars, "max_chunk_delay_ms": max_chunk_delay_ms}
        fields = to_fields(params, sampling) | ({"sample_index": sample_index} if sample_index else {})
        text = Text(self._channels, to_request(prompt, model, fields, output), self._timeout, self._resume_s)
        return Stream(self._events(text), text.cancel)

    def models(self) -> list[Model]:
        """The models this server holds.

        Raises:
            ServerUnavailableError: no server answers.
        """
        channel = self._channels.lease()
        list_models = channel.unary_unary(
            "/charrnn.v1.CharRnn/ListModels",
            request_serializer=pb.ListModelsRequest.SerializeToString,
            response_deserializer=pb.ListModelsResponse.FromString,
        )
        try:
            response = list_models(pb.ListModelsRequest(), timeout=self._timeout)
        except grpc.RpcError as error:
            raise self._error(error) from error
        finally:
            self._channels.release(channel)
        return [to_model(model) for model in response.models]

    def close(self) -> None:
        """Close the connections; texts that are not complete end with a ``ServerError``."""
        self._channels.close()

    def _events(self, text: Text) -> Iterator[Event]:
        try:
            for event in text.events():
                yield event
                if isinstance(event, Finished):
                    return
        except grpc.RpcError as error:
            raise self._error(error) from error
        raise ServerError(f"the server at {self._address} ended the text without saying why")

    def _error(self, error: Any) -> CharrnnError:
        """The one place where a gRPC status becomes an exception."""
        code = error.code()
        details = " ".join((error.details() or code.name).split())
        if code is grpc.StatusCode.UNAVAILABLE and details.lower().startswith(_NOT_REACHED):
            details = f"no server answers at {self._address}; is `charrnn serve` running there?"
        if code is grpc.StatusCode.DEADLINE_EXCEEDED and self._timeout is not None:
            details = f"the call did not end within its timeout of {self._timeout:g} s"
        return ERRORS[code](details)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

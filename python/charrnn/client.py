"""The face of a charrnn server: texts as streams, over gRPC.

Knows the wire and nothing of models: what may be asked is the server's to say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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
from charrnn.sampler import SamplingFields, SamplingParams, resolve
from charrnn.stream import Chunk, Event, Finished, FinishReason, Started, Stream, Timing
from charrnn.vocab import Unit, Vocab

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

_STOPPING = ("max_tokens", "min_tokens", "stop", "include_stop")
# What gRPC says when it never reached a server, as against a server that says it is stopping.
_NOT_REACHED = (
    "failed to connect",
    "errors resolving",
    "dns resolution failed",
    "name resolution",
    "connections to all backends",
)

_REASONS: dict[int, FinishReason] = {
    pb.FINISH_REASON_LENGTH: "length",
    pb.FINISH_REASON_STOP: "stop",
    pb.FINISH_REASON_MATCH: "match",
    pb.FINISH_REASON_END: "end",
    pb.FINISH_REASON_DEADLINE: "deadline",
}


@dataclass(frozen=True)
class Model:
    """A model that a server holds; ``digest`` is the sha256 of its bundle's manifest.

    ``state_bytes``: what one stream keeps. ``bpc``: bits per character on the validation split, if known.
    ``end_token`` ends a text of a model of documents; to go on beyond it, ban it with ``logit_bias``.
    """

    name: str
    digest: str
    cell: str
    num_layers: int
    hidden_size: int
    precision: str
    state_bytes: int
    vocab: Vocab
    bpc: float | None
    end_token: int | None


class Client:
    """Texts from the server at ``address``.

    No connection is made before the first call, and a lost one is made again. Any number of streams may be
    read at once and from several threads; for each further hundred another connection is opened.

    Args:
        address: ``host:port``.
        timeout: seconds that a call may take from its start to its end; ``None`` waits as long as it takes.

    Raises:
        RequestError: an address that is no ``host:port``.

    Example:
        >>> with Client("127.0.0.1:50051") as client:  # doctest: +SKIP
        ...     for chunk in client.generate("ROMEO:", max_tokens=200):
        ...         print(chunk.text, end="", flush=True)
    """

    def __init__(self, address: str, *, timeout: float | None = None) -> None:
        if timeout is not None and not 0 < timeout <= MAX_TIMEOUT_S:
            raise RequestError(
                f"timeout is {timeout:g} s; it must be above 0 and at most {MAX_TIMEOUT_S:g}, or None"
            )
        self._address = check_address(address)
        self._timeout = timeout
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
        fields = _fields(params, sampling) | ({"sample_index": sample_index} if sample_index else {})
        request = _request(prompt, model, fields, output)
        channel = self._channels.lease()
        call = channel.unary_stream(
            "/charrnn.v1.CharRnn/Generate",
            request_serializer=pb.GenerateRequest.SerializeToString,
            response_deserializer=pb.GenerateResponse.FromString,
        )(request, timeout=self._timeout)

        def cancel() -> None:
            call.cancel()
            self._channels.release(channel)

        return Stream(self._events(call), cancel)

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
        return [_model(model) for model in response.models]

    def close(self) -> None:
        """Close the connections; texts that are not complete end with a ``ServerError``."""
        self._channels.close()

    def _events(self, call: Any) -> Iterator[Event]:
        try:
            for response in call:
                if event := _event(response):
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


def _fields(params: SamplingParams | None, given: SamplingFields) -> dict[str, Any]:
    """What goes on the wire: all of ``params``, or the keywords given; checked before it is sent."""
    checked = resolve(params, given)
    names = SamplingFields.__annotations__ if params is not None else given
    values = {name: getattr(checked, name) for name in names if name != "logprobs_mode"}
    return {name: value for name, value in values.items() if value is not None}


def _request(
    prompt: str, model: str, fields: dict[str, Any], output: dict[str, int | None]
) -> pb.GenerateRequest:
    stopping = {name: fields.pop(name) for name in _STOPPING if name in fields}
    if "allowed" in fields:
        fields["allowed"] = pb.TokenIds(ids=fields["allowed"])
    output = {name: value for name, value in output.items() if value is not None}
    try:
        return pb.GenerateRequest(
            model=model,
            prompt=prompt,
            sampling=pb.Sampling(**fields) if fields else None,
            stopping=pb.Stopping(**stopping) if stopping else None,
            output=pb.Output(**output) if output else None,
        )
    except ValueError as error:  # a number that its field cannot hold, or text that is not Unicode
        raise RequestError(f"the request cannot be sent: {error}") from error


def _event(response: pb.GenerateResponse) -> Event | None:
    match response.WhichOneof("event"):
        case "started":
            started = response.started
            return Started(started.model, started.seed, started.prompt_chars)
        case "chunk":
            return Chunk(response.chunk.text, response.chunk.offset, response.chunk.n)
        case "finished":
            return _finished(response.finished)
    return None  # an event of a later version of the service


def _finished(finished: pb.Finished) -> Finished:
    reason = _REASONS.get(finished.reason)
    if reason is None:
        raise ServerError(f"the server ended the text for a reason unknown here: {finished.reason}")
    matched_stop = finished.matched_stop if finished.HasField("matched_stop") else None
    return Finished(reason, matched_stop, finished.chars, _timing(finished.timing))


def _timing(timing: pb.Timing) -> Timing:
    return Timing(
        queue_s=timing.queue_us / 1e6,
        first_char_s=timing.first_char_us / 1e6,
        total_s=timing.total_us / 1e6,
        num_steps=timing.steps,
        mean_batch=timing.mean_batch,
    )


def _model(model: pb.Model) -> Model:
    unit: Unit = "byte" if model.vocab.unit == pb.UNIT_BYTE else "char"
    return Model(
        name=model.name,
        digest=model.digest,
        cell=model.cell,
        num_layers=model.num_layers,
        hidden_size=model.hidden_size,
        precision=model.precision,
        state_bytes=model.state_bytes,
        vocab=Vocab(model.vocab.symbols, unit),
        bpc=model.bpc if model.HasField("bpc") else None,
        end_token=model.end_token if model.HasField("end_token") else None,
    )

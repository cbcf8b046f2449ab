"""What both clients share: how a server is reached, what is asked of it, and how a refusal is told.

Knows gRPC's statuses and messages, not how a call is made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, TypedDict, cast

import grpc

from charrnn._pb import charrnn_pb2 as pb
from charrnn.access import EVERYBODY, Access
from charrnn.addresses import check_address, is_loopback
from charrnn.errors import (
    CharrnnError,
    RequestError,
    ServerBusyError,
    ServerError,
    ServerUnavailableError,
)
from charrnn.sampler import SamplingFields, SamplingParams
from charrnn.tls import why_not
from charrnn.wire import to_fields, to_request

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

_CODES = {code.value[0]: code for code in ERRORS}

# A year: gRPC takes what overflows its clock for a time that has passed.
MAX_TIMEOUT_S = 366 * 86_400.0
# gRPC's own limit.
MAX_ATTEMPTS = 5

# What the transport of a server says, with CANCELLED, where its clock is ahead of this one.
_TOO_LATE = "Timeout expired"
# A server reads no more, and can tell nothing behind it from it: on a call of many texts all would end.
MAX_REQUEST_BYTES = 1 << 20
# What a server says of a request that it does not read. gRPC has the same code for it as for a full queue.
_TOO_LARGE = "message length too large"
# What gRPC says when it never reached a server, as against a server that says it is stopping.
_NOT_REACHED = (
    "failed to connect",
    "errors resolving",
    "dns resolution failed",
    "name resolution",
    "connections to all backends",
)


class GenerateFields(SamplingFields, total=False):
    """What ``generate`` takes by keyword: the fields of ``SamplingParams``, and

    ``model``: its name; may be left out when the server holds one. ``version``: only this one of the model,
    instead of the one that is served now. ``sample_index``: which of several samples of one prompt and seed.
    ``chunk_chars``: characters a chunk holds before it is sent, whatever its
    age; default 256. ``max_chunk_delay_ms``: longest wait of a character for its chunk; absent, 10 ms and
    more under load. ``ids``: chunks tell the token ids of their characters. ``logprobs``: and how likely each
    was, natural logarithms in the model's own distribution. ``top_logprobs``: and so many of the most likely
    in its place, at most 20. ``echo``: the prompt comes first, as a part of the text.

    ``resumable``: end with a ``finished.resume_token`` where the text could go on: at ``max_tokens``, at the
    timeout, when the server stops, and when its reader took nothing for too long. A text that may have 4096
    characters asks for it anyway, to go on without being made from its beginning. ``resume_token``: of a
    text, which goes on; beside it neither a prompt nor parameters are given, but ``max_tokens`` of the whole
    text may be. The first chunk's ``offset`` says how much of the text stays: all, but where ``max_tokens``
    cut what may be a stop string. ``logprobs`` are NaN for symbols that a stop string held back at the cut.
    """

    model: str
    version: str | None
    sample_index: int
    chunk_chars: int | None
    max_chunk_delay_ms: int | None
    ids: bool
    logprobs: bool
    top_logprobs: int | None
    echo: bool
    resumable: bool
    resume_token: bytes | None


class Asked(GenerateFields, total=False):
    """What one of many texts is asked for with: what ``generate`` takes by keyword, and ``prompt``."""

    prompt: str


class ScoreFields(TypedDict, total=False):
    """What ``score`` takes by keyword.

    ``model``, ``version``: as in ``GenerateFields``. ``prompt``: what the model reads first, not scored;
    without it the first character is predicted from the model's start symbol. ``per_symbol``: tell each
    symbol's id and log-probability, too. ``top_logprobs``: and so many of the most likely in its place, at
    most 20.
    """

    model: str
    version: str | None
    prompt: str
    per_symbol: bool
    top_logprobs: int | None


# From here on a token costs less than the steps it saves.
LONG_TEXT = 4096
# As they are called on the wire.
_OUTPUT = {
    name: name for name in ("chunk_chars", "max_chunk_delay_ms", "ids", "logprobs", "top_logprobs")
} | {"echo": "echo_prompt"}


@dataclass(frozen=True)
class Settings:
    """How a client reaches its server; the fields are those of ``Client``.

    Raises:
        RequestError: an address that is no ``host:port``, or a number out of its limits.
    """

    address: str
    _: KW_ONLY
    timeout: float | None = None
    resume_s: float = 10.0
    attempts: int = 1
    access: Access = EVERYBODY

    def __post_init__(self) -> None:
        check_address(self.address)
        if self.timeout is not None and not 0 < self.timeout <= MAX_TIMEOUT_S:
            raise RequestError(
                f"timeout is {self.timeout:g} s; it must be above 0 and at most {MAX_TIMEOUT_S:g}, or None"
            )
        if not 0 <= self.resume_s <= MAX_TIMEOUT_S:
            raise RequestError(f"resume_s is {self.resume_s:g}; it must be 0 to {MAX_TIMEOUT_S:g} seconds")
        if not 1 <= self.attempts <= MAX_ATTEMPTS:
            raise RequestError(f"attempts is {self.attempts}; it must be 1 to {MAX_ATTEMPTS}")

    def options(self) -> Sequence[tuple[str, str | int]]:
        """Of every channel."""
        return [
            *self.access.options(self.address),
            # Without it, channels to one address share one connection.
            ("grpc.use_local_subchannel_pool", 1),
            # A score that tells 20 of the most likely symbols for each of 65,536; the default is 4 MB.
            ("grpc.max_receive_message_length", 32 << 20),
            # The default grows to two minutes, in which a server that is back is not tried.
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            # A proxy set for the web would be asked to reach this machine.
            ("grpc.enable_http_proxy", 0 if is_loopback(self.address) else 1),
            ("grpc.service_config", json.dumps(self._service_config())),
        ]

    def _service_config(self) -> Mapping[str, Any]:
        method: dict[str, Any] = {"name": [{"service": "charrnn.v1.CharRnn"}]}
        if self.attempts > 1:
            method["retryPolicy"] = {
                "maxAttempts": self.attempts,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
            }
        return {"loadBalancingConfig": [{"round_robin": {}}], "methodConfig": [method]}

    def error(self, error: Any) -> CharrnnError:
        """The one place where a gRPC status becomes an exception."""
        code = error.code()
        details = _line(error.details() or code.name)
        # What a server says comes with metadata; without, it is gRPC that has no connection.
        if code is grpc.StatusCode.UNAVAILABLE and not error.trailing_metadata():
            if why := why_not(self.address, self.access.tls):
                details = why
            elif details.lower().startswith(_NOT_REACHED):
                details = f"no server answers at {self.address}; is `charrnn serve` running there?"
        if code is grpc.StatusCode.UNAUTHENTICATED:
            details = f"the server at {self.address} does not answer: {details}"
        if code is grpc.StatusCode.UNIMPLEMENTED:
            details = f"{self.address} knows no such call: is it where --listen of this version's serve is?"
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in details:
            return RequestError(f"the request is larger than the server takes: {details}")
        is_late = code is grpc.StatusCode.DEADLINE_EXCEEDED or details == _TOO_LATE
        if is_late and self.timeout is not None:
            details = f"the call did not end within its timeout of {self.timeout:g} s"
        return ERRORS[code](details)

    def broken_off(self) -> ServerError:
        """A text that is over, and was not said to be."""
        return ServerError(f"the server at {self.address} ended the text without saying why")


def request_of(
    prompt: str, params: SamplingParams | None, fields: GenerateFields, *, resumes: bool = False
) -> pb.GenerateRequest:
    """The request for one text, of a client that ``resumes`` by itself or does not.

    Raises:
        TypeError: ``params`` and a field of it, or a field that there is not.
        RequestError: a value out of its limits.
    """
    given: dict[str, Any] = dict(fields)
    model, index = given.pop("model", ""), given.pop("sample_index", 0)
    version = given.pop("version", None)
    token, resumable = given.pop("resume_token", None), given.pop("resumable", False)
    output = {wire: given.pop(name, None) for name, wire in _OUTPUT.items()}
    sampling = to_fields(params, cast(SamplingFields, given)) | ({"sample_index": index} if index else {})
    if token is not None and (prompt or sampling.keys() - {"max_tokens"}):
        raise RequestError(
            "resume_token has the prompt and the parameters; give max_tokens beside it at most"
        )
    output["resume_token"] = resumable or (resumes and sampling.get("max_tokens", 0) >= LONG_TEXT)
    request = to_request(prompt, token, model, sampling, output)
    if version is not None:
        request.version = version
    return request


def one_of_many(request_id: str, asked: Asked | None, *, resumes: bool = False) -> pb.GenerateRequest:
    """The request for one of the texts of a call, or to cancel it if nothing is asked.

    The client ``resumes`` texts by itself or does not.

    Raises:
        RequestError: a value out of its limits.
    """
    if asked is None:
        return pb.GenerateRequest(request_id=request_id, cancel=True)
    fields: dict[str, Any] = dict(asked)
    message = request_of(fields.pop("prompt", ""), None, cast(GenerateFields, fields), resumes=resumes)
    message.request_id = request_id
    if (size := message.ByteSize()) > MAX_REQUEST_BYTES:
        raise RequestError(f"a request has {size:,} bytes; a server takes {MAX_REQUEST_BYTES:,} at most")
    return message


class RefusedError(Exception):
    """One text of a call was refused. Has what a status has; ``told`` is what its reader is told."""

    def __init__(self, refused: pb.Refused) -> None:
        self._code = _CODES.get(refused.code, grpc.StatusCode.UNKNOWN)
        self._details = refused.message

    def code(self) -> grpc.StatusCode:
        """As of a status."""
        return self._code

    def details(self) -> str:
        """As of a status."""
        return self._details

    def told(self) -> CharrnnError:
        """What ``generate`` would have raised."""
        return ERRORS[self._code](_line(self._details))


def _line(text: str) -> str:
    return " ".join(text.split())

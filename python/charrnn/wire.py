"""Between the wire and the types of the package: requests out, events and models in.

Knows protobuf messages, not how they travel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from charrnn._pb import charrnn_pb2 as pb
from charrnn.errors import RequestError, ServerError
from charrnn.sampler import SamplingFields, SamplingParams, resolve
from charrnn.score import Score
from charrnn.stream import Chunk, Event, Finished, FinishReason, Started, Timing, Top
from charrnn.vocab import Unit, Vocab

_STOPPING = ("max_tokens", "min_tokens", "stop", "include_stop")

_REASONS: dict[int, FinishReason] = {
    pb.FINISH_REASON_LENGTH: "length",
    pb.FINISH_REASON_STOP: "stop",
    pb.FINISH_REASON_MATCH: "match",
    pb.FINISH_REASON_END: "end",
    pb.FINISH_REASON_DEADLINE: "deadline",
    pb.FINISH_REASON_DRAINED: "drained",
    pb.FINISH_REASON_STALLED: "stalled",
}


@dataclass(frozen=True)
class Model:
    """A model that a server holds; ``digest`` is the sha256 of its bundle's manifest.

    ``version`` tells models of one name apart, of which the older is there until its texts are over.
    ``state_bytes``: what one stream keeps. ``bpc``: bits per character on the validation split, if known.
    ``end_token`` ends a text of a model of documents; to go on beyond it, ban it with ``logit_bias``.
    """

    name: str
    version: str
    digest: str
    cell: str
    num_layers: int
    hidden_size: int
    precision: str
    state_bytes: int
    vocab: Vocab
    bpc: float | None
    end_token: int | None


def method(name: str, service: str = "CharRnn") -> tuple[str, Any, Any]:
    """What a channel needs to know of a method: its path, how requests are written and responses read."""
    request, response = getattr(pb, f"{name}Request"), getattr(pb, f"{name}Response")
    return f"/charrnn.v1.{service}/{name}", request.SerializeToString, response.FromString


def to_fields(params: SamplingParams | None, given: SamplingFields) -> dict[str, Any]:
    """What goes on the wire: all of ``params``, or the keywords given; checked before it is sent."""
    checked = resolve(params, given)
    names = SamplingFields.__annotations__ if params is not None else given
    values = {name: getattr(checked, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def to_request(
    prompt: str, token: bytes | None, model: str, fields: dict[str, Any], output: Mapping[str, int | None]
) -> pb.GenerateRequest:
    """A request for one text, from its prompt or, if there is one, from the resume token of another.

    Raises:
        RequestError: a value that no message can hold, or a prompt or token of another type.
    """
    stopping = {name: fields.pop(name) for name in _STOPPING if name in fields}
    if "allowed" in fields:
        fields["allowed"] = pb.TokenIds(ids=fields["allowed"])
    # A switch that is off is the default, and 0 is a number.
    asked: dict[str, Any] = {
        name: value for name, value in output.items() if value is not None and value is not False
    }
    start = _prompt(prompt) if token is None else _token(token)
    try:
        return pb.GenerateRequest(
            model=model,
            **start,
            sampling=pb.Sampling(**fields) if fields else None,
            stopping=pb.Stopping(**stopping) if stopping else None,
            output=pb.Output(**asked) if asked else None,
        )
    except ValueError as error:  # a number that its field cannot hold, or text that is not Unicode
        raise RequestError(f"the request cannot be sent: {error}") from error


# What is of another type may not be left out: the server would make the text of an empty prompt.
def _prompt(given: object) -> dict[str, Any]:
    if isinstance(given, str):
        return {"prompt": given}
    raise RequestError(f"prompt is of type {type(given).__name__}; give a str")


def _token(given: object) -> dict[str, Any]:
    if isinstance(given, bytes | bytearray | memoryview):
        return {"resume_token": bytes(given)}
    kind = type(given).__name__
    raise RequestError(f"resume_token is of type {kind}; give the bytes of finished.resume_token")


def to_event(response: pb.GenerateResponse) -> Event | None:
    """What a response tells; nothing if it is of a later version of the service."""
    match response.WhichOneof("event"):
        case "started":
            started = response.started
            return Started(started.model, started.seed, started.prompt_chars, started.version)
        case "chunk":
            return _chunk(response.chunk)
        case "finished":
            return _finished(response.finished)
    return None  # an event of a later version of the service


def _chunk(chunk: pb.Chunk) -> Chunk:
    if not chunk.ids:  # then it tells nothing more, and reading fields costs more than all the rest
        return Chunk(chunk.text, chunk.offset, chunk.n)
    ids, logprobs = tuple(chunk.ids), tuple(chunk.logprobs)
    return Chunk(chunk.text, chunk.offset, chunk.n, ids, logprobs, _tops(chunk.top))


def _tops(tops: Iterable[pb.TopLogprobs]) -> tuple[Top, ...]:
    return tuple(tuple(zip(top.ids, top.logprobs, strict=True)) for top in tops)


def to_score_request(text: str | Sequence[int], **fields: Any) -> pb.ScoreRequest:
    """A request for the score of one text.

    Raises:
        RequestError: a value that no message can hold, or a field that there is not.
    """
    try:
        request = pb.ScoreRequest(**fields)
        if isinstance(text, str):
            request.text = text
        else:
            request.ids.ids.extend(text)
    except (TypeError, ValueError) as error:
        raise RequestError(f"the request cannot be sent: {error}") from error
    return request


def to_score(response: pb.ScoreResponse) -> Score:
    """What the server says of a text."""
    return Score(
        model=response.model,
        version=response.version,
        num_symbols=response.num_symbols,
        nats=response.nats,
        ids=tuple(response.ids),
        logprobs=tuple(response.logprobs),
        top=_tops(response.top),
    )


def _finished(finished: pb.Finished) -> Finished:
    reason = _REASONS.get(finished.reason)
    if reason is None:
        raise ServerError(f"the server ended the text for a reason unknown here: {finished.reason}")
    matched_stop = finished.matched_stop if finished.HasField("matched_stop") else None
    token = finished.resume_token if finished.HasField("resume_token") else None
    return Finished(reason, matched_stop, finished.chars, _timing(finished.timing), token)


def _timing(timing: pb.Timing) -> Timing:
    return Timing(
        queue_s=timing.queue_us / 1e6,
        first_char_s=timing.first_char_us / 1e6,
        total_s=timing.total_us / 1e6,
        num_steps=timing.steps,
        mean_batch=timing.mean_batch,
    )


def to_model(model: pb.Model) -> Model:
    """A model of a list."""
    unit: Unit = "byte" if model.vocab.unit == pb.UNIT_BYTE else "char"
    return Model(
        name=model.name,
        version=model.version,
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

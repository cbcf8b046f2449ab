"""A text whose server is lost goes on with another, character for character."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from charrnn._pb import charrnn_pb2 as pb
from charrnn.client import Client
from charrnn.errors import RequestError, ServerBusyError, ServerError, ServerUnavailableError
from tests.fakes import Generate, chunk, fake_server, started

TEXT = "abcdefghijklmnopqrstuvwxyzéabc"


def finished(num_chars: int) -> pb.GenerateResponse:
    return pb.GenerateResponse(finished=pb.Finished(reason=pb.FINISH_REASON_LENGTH, chars=num_chars))


def lost(context: Any) -> None:
    context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")


def losing(
    breaks: list[int], text: str = TEXT, end: Callable[[Any], None] = lost
) -> tuple[Generate, list[Any]]:
    """A server that loses its n-th call after ``breaks[n]`` characters; and the requests that it got."""
    requests: list[pb.GenerateRequest] = []

    def generate(request: pb.GenerateRequest, context: Any) -> Iterator[pb.GenerateResponse]:
        number = len(requests)
        requests.append(request)
        # Chunks of another size each time: where they are cut has no meaning.
        size = 3 + number
        yield started(seed=request.sampling.seed or 99)
        last = breaks[number] if number < len(breaks) else len(text)
        for at in range(0, last, size):
            yield chunk(text[at : min(at + size, last)], at)
        if number < len(breaks):
            end(context)
        yield finished(len(text))

    return generate, requests


@pytest.mark.parametrize("breaks", [[], [0], [1], [30], [7, 12], [12, 7, 20], [29, 1, 2, 30]])
def test_a_reader_notices_nothing(breaks: list[int]) -> None:
    generate, requests = losing(breaks)
    with fake_server(generate) as address, Client(address) as client, client.generate("p") as stream:
        chunks = list(stream)
    assert "".join(part.text for part in chunks) == TEXT
    assert [part.offset for part in chunks] == [
        sum(other.num_chars for other in chunks[:number]) for number in range(len(chunks))
    ]
    assert (stream.seed, len(requests)) == (99, len(breaks) + 1)
    assert stream.finished is not None
    assert {request.sampling.seed for request in requests[1:]} <= {99}
    assert {(request.prompt, request.model) for request in requests[1:]} <= {("p", "fake")}


@pytest.mark.parametrize("breaks", [[], [0], [5], [2, 4, 6], [10], [7, 1, 3]])
def test_symbols_stay_with_their_characters(breaks: list[int]) -> None:
    """Of a byte vocabulary: U+FFFD may be one byte or three, so a character does not tell how many it is."""
    widths = [1, 2, 1, 3, 1, 1, 2, 4, 1, 3]
    text = "aé\ufffd\ufffdb\ufffd\ufffd🙂c€"
    symbols = [[10 * at + k for k in range(width)] for at, width in enumerate(widths)]
    requests: list[pb.GenerateRequest] = []

    def generate(request: pb.GenerateRequest, context: Any) -> Iterator[pb.GenerateResponse]:
        number = len(requests)
        requests.append(request)
        yield started(seed=9)
        last = breaks[number] if number < len(breaks) else len(text)
        for at in range(0, last, 3 + number):
            until = min(at + 3 + number, last)
            part = chunk(text[at:until], at)
            ids = [token for of in symbols[at:until] for token in of]
            part.chunk.ids.extend(ids)
            part.chunk.logprobs.extend(-token for token in ids)
            part.chunk.top.extend(pb.TopLogprobs(ids=[token], logprobs=[-token]) for token in ids)
            yield part
        if number < len(breaks):
            lost(context)
        yield finished(len(text))

    with fake_server(generate) as address, Client(address) as client:
        chunks = list(client.generate(logprobs=True))
    assert "".join(part.text for part in chunks) == text
    for part in chunks:
        until = part.offset + part.num_chars
        ids = tuple(token for of in symbols[part.offset : until] for token in of)
        assert part.ids == ids
        assert part.logprobs == tuple(-token for token in ids)
        assert part.top == tuple(((token, -token),) for token in ids)


@pytest.mark.parametrize("other", [TEXT[:5] + "X" + TEXT[6:], TEXT[:3]], ids=["differs", "is shorter"])
def test_another_text_is_an_error_and_no_mixture(other: str) -> None:
    first, _ = losing([10])
    second, _ = losing([], other)
    calls = iter([first, second])
    read: list[str] = []
    with (
        fake_server(lambda request, context: next(calls)(request, context)) as address,
        Client(address) as client,
        pytest.raises(ServerError, match="another text for the same seed"),
    ):
        read.extend(part.text for part in client.generate())
    assert "".join(read) == TEXT[:10]


def test_it_gives_up_in_the_end() -> None:
    generate, requests = losing([5] * 100)
    began = time.monotonic()
    with (
        fake_server(generate) as address,
        Client(address, resume_s=0.5) as client,
        pytest.raises(ServerUnavailableError, match="stopping"),
    ):
        client.generate().read()
    assert len(requests) > 2
    assert time.monotonic() - began >= 0.5


@pytest.mark.parametrize("resume_s", [0.0, 10.0])
def test_what_never_began_is_not_asked_for_again(resume_s: float) -> None:
    requests = []

    def generate(request: pb.GenerateRequest, context: Any) -> Iterator[pb.GenerateResponse]:
        requests.append(request)
        lost(context)
        yield started()

    with fake_server(generate) as address, Client(address, resume_s=resume_s) as client:
        with pytest.raises(ServerUnavailableError):
            client.generate().read()
        assert len(requests) == 1
        broken, requests = losing([4])
    with fake_server(broken) as address, Client(address, resume_s=0) as client:
        with pytest.raises(ServerUnavailableError):
            client.generate().read()
        assert len(requests) == 1


def test_other_errors_end_a_text() -> None:
    def busy(context: Any) -> None:
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")

    generate, requests = losing([5], end=busy)
    with fake_server(generate) as address, Client(address) as client, pytest.raises(ServerBusyError):
        client.generate().read()
    assert len(requests) == 1


def test_closing_ends_the_waiting_for_a_server() -> None:
    generate, _ = losing([5] * 100)
    with fake_server(generate) as address, Client(address, resume_s=600) as client:
        stream = client.generate()
        next(stream)
        stream.close()
        assert list(stream) == []


@pytest.mark.parametrize("resume_s", [-1.0, float("nan"), float("inf")])
def test_a_time_that_is_none_is_refused(resume_s: float) -> None:
    with pytest.raises(RequestError, match="resume_s"):
        Client("127.0.0.1:1", resume_s=resume_s)

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


def handed_over(
    num_chars: int, token: bytes, reason: pb.FinishReason = pb.FINISH_REASON_DRAINED
) -> pb.GenerateResponse:
    return pb.GenerateResponse(finished=pb.Finished(reason=reason, chars=num_chars, resume_token=token))


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


def handing_over(steps: list[str], text: str = TEXT) -> tuple[Generate, list[pb.GenerateRequest]]:
    """A server whose n-th call does ``steps[n]``, or all of the text; and the requests that it got.

    "drain 7", "stall 7", "late 7" and "lose 7" end it after 7 characters, "refuse CODE" refuses its token,
    "full" all.
    """
    requests: list[pb.GenerateRequest] = []

    def generate(request: pb.GenerateRequest, context: Any) -> Iterator[pb.GenerateResponse]:
        word, _, value = steps[len(requests)].partition(" ") if len(requests) < len(steps) else ("", "", "")
        requests.append(request)
        if word == "refuse":
            context.abort(grpc.StatusCode[value], "resume_token was made by a server with another key")
        if word == "full":
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full")
        yield started(seed=99)
        begin = int(request.resume_token or 0)
        last = int(value) if value else len(text)
        for at in range(begin, last, 3):
            yield chunk(text[at : min(at + 3, last)], at)
        if word == "drain":
            yield handed_over(last, str(last).encode())
        elif word == "stall":
            yield handed_over(last, str(last).encode(), pb.FINISH_REASON_STALLED)
        elif word == "late":
            yield handed_over(last, str(last).encode(), pb.FINISH_REASON_DEADLINE)
        elif word == "lose":
            lost(context)
        yield finished(len(text))

    return generate, requests


@pytest.mark.parametrize(
    ("steps", "starts"),
    [
        (["drain 7"], ["p", "7"]),
        (["drain 1", "drain 1", "drain 29"], ["p", "1", "1", "29"]),
        (["drain 7", "lose 15"], ["p", "7", "7"]),
        (["stall 7", "stall 15", "drain 16"], ["p", "7", "15", "16"]),
        (["drain 7", "lose 7", "drain 30"], ["p", "7", "7", "30"]),
        (["lose 12", "drain 20", "lose 25"], ["p", "p", "20", "20"]),
        # Before all that was read has come again.
        (["lose 20", "drain 7", "drain 13", "drain 20"], ["p", "p", "7", "13", "20"]),
        (["lose 20", "drain 7", "refuse INVALID_ARGUMENT"], ["p", "p", "7", "p"]),
        (["drain 3", "lose 20", "drain 7", "lose 25"], ["p", "3", "3", "7", "7"]),
        (["drain 7", "refuse INVALID_ARGUMENT"], ["p", "7", "p"]),
        (["drain 7", "lose 12", "refuse FAILED_PRECONDITION", "drain 15"], ["p", "7", "7", "p", "15"]),
    ],
)
def test_a_text_goes_on_with_the_token_of_a_server_that_stopped(steps: list[str], starts: list[str]) -> None:
    generate, requests = handing_over(steps)
    with (
        fake_server(generate) as address,
        Client(address) as client,
        client.generate("p", max_tokens=5000, temperature=0.5, chunk_chars=3) as stream,
    ):
        chunks = list(stream)
    assert "".join(part.text for part in chunks) == TEXT
    assert [request.prompt or request.resume_token.decode() for request in requests] == starts
    assert stream.finished is not None
    assert stream.finished.reason == "length"
    for request in requests:
        assert request.output == requests[0].output
        assert request.output.resume_token
        assert request.HasField("sampling") == request.HasField("stopping") == bool(request.prompt)


def test_another_text_after_a_token_is_an_error() -> None:
    first, _ = handing_over(["drain 6", "lose 12"])
    second, _ = handing_over([], TEXT[:9] + "X" + TEXT[10:])
    calls = iter([first, first, second])
    with (
        fake_server(lambda request, context: next(calls)(request, context)) as address,
        Client(address) as client,
        pytest.raises(ServerError, match="another text for the same seed"),
    ):
        client.generate(max_tokens=5000).read()


def test_a_refused_token_of_the_callers_own_is_an_error() -> None:
    generate, requests = handing_over(["lose 20", "refuse INVALID_ARGUMENT"])
    with (
        fake_server(generate) as address,
        Client(address) as client,
        pytest.raises(RequestError, match="another key"),
    ):
        client.generate(resume_token=b"12").read()
    assert [request.resume_token for request in requests] == [b"12", b"12"]


def test_a_text_goes_on_from_a_token() -> None:
    generate, requests = handing_over(["lose 20", "drain 25"])
    with fake_server(generate) as address, Client(address) as client:
        stream = client.generate(resume_token=b"12", max_tokens=9000, resumable=True)
        chunks = list(stream)
    assert chunks[0].offset == 12
    assert "".join(part.text for part in chunks) == TEXT[12:]
    assert [request.resume_token for request in requests] == [b"12", b"12", b"25"]
    assert [request.stopping.max_tokens for request in requests] == [9000, 9000, 0]


def test_without_resuming_a_drained_text_is_the_callers() -> None:
    generate, requests = handing_over(["drain 7"])
    with fake_server(generate) as address, Client(address, resume_s=0) as client:
        stream = client.generate("p", resumable=True)
        assert stream.read() == TEXT[:7]
        assert stream.finished is not None
        assert (stream.finished.reason, stream.finished.resume_token) == ("drained", b"7")
        client.generate("p", max_tokens=5000).read()
    assert [request.output.resume_token for request in requests] == [True, False]


def test_a_short_text_asks_for_no_token() -> None:
    generate, requests = handing_over([])
    with fake_server(generate) as address, Client(address) as client:
        client.generate("p", max_tokens=4095).read()
        client.generate("p").read()
    assert not any(request.HasField("output") for request in requests)


@pytest.mark.parametrize("given", [{"prompt": "p"}, {"temperature": 1.0}, {"sample_index": 1}])
def test_beside_a_token_only_a_length_is_taken(given: dict[str, Any]) -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(RequestError, match="resume_token has the prompt"):
        client.generate(resume_token=b"t", **given)


def test_nobody_takes_the_text_over() -> None:
    generate, requests = handing_over(["drain 7"] * 100)
    with (
        fake_server(generate) as address,
        Client(address, resume_s=0.5) as client,
        pytest.raises(ServerUnavailableError, match="handed the text over, and none took it"),
    ):
        client.generate("p", max_tokens=5000).read()
    assert len(requests) > 2


@pytest.mark.parametrize(
    "steps", [["drain 7"] * 100, ["drain 7", *["lose 7"] * 100], ["drain 7", *["full"] * 100]]
)
def test_nobody_takes_the_text_over_and_its_reader_has_the_token(steps: list[str]) -> None:
    generate, requests = handing_over(steps)
    with fake_server(generate) as address, Client(address, resume_s=0.5) as client:
        stream = client.generate("p", resumable=True)
        assert stream.read() == TEXT[:7]
    assert stream.finished is not None
    assert (stream.finished.reason, stream.finished.resume_token) == ("drained", b"7")
    assert len(requests) > 2


def test_a_deadline_that_passes_before_all_has_come_again_ends_what_was_read() -> None:
    generate, _ = handing_over(["lose 20", "late 7"])
    with fake_server(generate) as address, Client(address) as client:
        stream = client.generate("p", resumable=True)
        assert stream.read() == TEXT[:20]
    assert stream.finished is not None
    assert (stream.finished.reason, stream.finished.num_chars) == ("deadline", 20)
    assert stream.finished.resume_token is None


def test_a_token_of_an_earlier_place_is_no_end() -> None:
    generate, _ = handing_over(["drain 7", *["lose 15"] * 100])
    with (
        fake_server(generate) as address,
        Client(address, resume_s=0.5) as client,
        pytest.raises(ServerUnavailableError),
    ):
        client.generate("p", resumable=True).read()


def test_a_text_that_was_lost_waits_for_room_and_one_that_has_not_begun_does_not() -> None:
    generate, requests = handing_over(["lose 7", "full", "full"])
    with fake_server(generate) as address, Client(address) as client:
        assert client.generate("p").read() == TEXT
    assert len(requests) == 4
    generate, requests = handing_over(["full"])
    with fake_server(generate) as address, Client(address) as client, pytest.raises(ServerBusyError):
        client.generate("p").read()

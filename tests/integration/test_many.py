"""Many texts on one call of a real server."""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing
from pathlib import Path

import grpc
import pytest

from charrnn import AsyncClient, Client
from charrnn._pb import charrnn_pb2 as pb
from charrnn.calls import Asked
from charrnn.errors import CharrnnError, RequestError, ServerError
from charrnn.stream import Chunk, Event, Finished, Started
from charrnn.texts import MAX_TEXTS
from tests.fakes import fake_server
from tests.replicas import eventually
from tests.servers import running_server


@pytest.fixture(scope="module")
def address(tiny_bundle: Path) -> Iterator[str]:
    with running_server(tiny_bundle, "--workers", "2") as found:
        yield found


def asked(i: int) -> Asked:
    return {"prompt": "The "[: i % 5], "seed": i, "max_tokens": 20 + i, "chunk_chars": 1 + i % 20}


def test_each_text_is_the_one_that_generate_gives(address: str) -> None:
    got: dict[str, list[Event | CharrnnError]] = defaultdict(list)
    with Client(address) as client:
        for name, event in client.generate_many((str(i), asked(i)) for i in range(60)):
            got[name].append(event)
        assert len(got) == 60
        for name, (first, *chunks, last) in got.items():
            assert isinstance(first, Started)
            assert isinstance(last, Finished)
            text = "".join(chunk.text for chunk in chunks if isinstance(chunk, Chunk))
            assert text == client.generate(**asked(int(name))).read()
            assert last.num_chars == len(text)


def test_one_that_is_refused_ends_alone(address: str) -> None:
    requests: list[tuple[str, Asked]] = [
        ("bad", {"prompt": "\x00"}),
        ("worse", {"model": "none"}),
        ("good", {"max_tokens": 3}),
    ]
    with Client(address) as client:
        last = dict(client.generate_many(requests))
    assert isinstance(last["bad"], RequestError)
    assert "prompt" in str(last["bad"])
    assert isinstance(last["worse"], RequestError)
    assert isinstance(last["good"], Finished)


def test_more_texts_than_a_call_may_have_are_all_made(address: str) -> None:
    with Client(address) as client:
        requests = ((str(i), Asked(seed=i, max_tokens=1_000)) for i in range(1_500))
        answers = client.generate_many(requests)
        ends = [event for _, event in answers if not isinstance(event, Started | Chunk)]
    assert len(ends) == 1_500
    assert all(isinstance(end, Finished) for end in ends), ends


def test_a_reader_who_waits_holds_up_the_requests_and_nobody_else(address: str) -> None:
    num_asked = itertools.count()
    requests = ((str(i), Asked(seed=i, max_tokens=50)) for i in num_asked)
    with Client(address, resume_s=0) as client, closing(client.generate_many(requests)) as answers:
        next(answers)
        time.sleep(1.0)
        assert next(num_asked) <= MAX_TEXTS + 3
        assert len(client.generate(max_tokens=5).read()) == 5
        assert sum(isinstance(event, Finished) for _, event in itertools.islice(answers, 20_000)) > MAX_TEXTS


def is_still(sent: list[int]) -> bool:
    before = len(sent)
    time.sleep(1.0)
    return len(sent) == before


def test_a_call_of_small_requests_that_nobody_reads_does_not_end_the_connection(address: str) -> None:
    """Of a client that sends whatever it is asked. HTTP/2 takes many such messages for a fault."""
    sent, is_over = list[int](), threading.Event()

    def requests() -> Iterator[pb.GenerateRequest]:
        for i in itertools.takewhile(lambda _: not is_over.is_set(), itertools.count()):
            sent.append(i)
            yield pb.GenerateRequest(request_id=str(i), prompt="T", stopping=pb.Stopping(max_tokens=50))

    with grpc.insecure_channel(address) as channel:
        many = channel.stream_stream(
            "/charrnn.v1.CharRnn/GenerateMany",
            pb.GenerateRequest.SerializeToString,
            pb.GenerateResponse.FromString,
        )
        call = many(requests())
        eventually("the server takes no more", lambda: len(sent) > MAX_TEXTS and is_still(sent))
        models = channel.unary_unary("/charrnn.v1.CharRnn/ListModels", pb.ListModelsRequest.SerializeToString)
        assert models(pb.ListModelsRequest(), timeout=10)
        assert call.is_active(), call.details()
        is_over.set()
        call.cancel()


def test_a_text_is_cancelled_by_its_id(address: str) -> None:
    requests: queue.SimpleQueue[tuple[str, Asked | None] | None] = queue.SimpleQueue()
    requests.put(("long", {"max_tokens": 1_000_000}))
    last = {}
    with Client(address) as client:
        for name, event in client.generate_many(iter(requests.get, None)):
            if isinstance(event, Started):
                requests.put((name, None))
            elif isinstance(event, CharrnnError):
                requests.put(None)
            last[name] = event
    assert isinstance(last["long"], ServerError)
    assert "cancelled" in str(last["long"])


def test_a_request_that_cannot_be_made_ends_the_call(address: str) -> None:
    def requests() -> Iterator[tuple[str, Asked]]:
        yield "good", {"max_tokens": 1_000_000}
        yield "bad", {"top_p": 2.0}

    with Client(address) as client, pytest.raises(RequestError, match="top_p"):
        list(client.generate_many(requests()))


def test_a_server_that_knows_no_such_call_is_an_error() -> None:
    with fake_server() as address, Client(address) as client, pytest.raises(ServerError):
        list(client.generate_many([("a", {})]))


def test_leaving_the_loop_ends_the_call(address: str) -> None:
    with Client(address) as client:
        events = client.generate_many((str(i), {"max_tokens": 1_000_000}) for i in range(20))
        next(iter(events))
        events.close()
        assert [connection.num_live for connection in client._channels._connections] == [0]


def test_on_a_loop_each_text_is_the_one_that_generate_gives_and_a_refusal_ends_alone(address: str) -> None:
    async def read() -> dict[str, list[Event | CharrnnError]]:
        got: dict[str, list[Event | CharrnnError]] = defaultdict(list)
        async with AsyncClient(address) as client:
            requests = [(str(i), asked(i)) for i in range(40)]
            async for name, event in client.generate_many([("bad", {"prompt": "\x00"}), *requests]):
                got[name].append(event)
        return got

    got = asyncio.run(asyncio.wait_for(read(), 120))
    (refused,) = got.pop("bad")
    assert isinstance(refused, RequestError)
    assert len(got) == 40
    with Client(address) as client:
        for name, events in got.items():
            text = "".join(event.text for event in events if isinstance(event, Chunk))
            assert text == client.generate(**asked(int(name))).read()


def test_on_a_loop_a_text_is_cancelled_by_its_id(address: str) -> None:
    async def read() -> Event | CharrnnError:
        waiting: asyncio.Queue[tuple[str, Asked | None] | None] = asyncio.Queue()
        waiting.put_nowait(("long", {"max_tokens": 1_000_000}))

        async def requests() -> AsyncIterator[tuple[str, Asked | None]]:
            while (request := await waiting.get()) is not None:
                yield request

        last: Event | CharrnnError | None = None
        async with AsyncClient(address) as client:
            async for name, last in client.generate_many(requests()):
                if isinstance(last, Started):
                    waiting.put_nowait((name, None))
                elif isinstance(last, CharrnnError):
                    waiting.put_nowait(None)
        assert last is not None
        return last

    last = asyncio.run(asyncio.wait_for(read(), 120))
    assert isinstance(last, ServerError)
    assert "cancelled" in str(last)


def test_on_a_loop_a_request_that_cannot_be_made_ends_the_call(address: str) -> None:
    async def read() -> None:
        async with AsyncClient(address) as client:
            requests: list[tuple[str, Asked]] = [("good", {"max_tokens": 1_000_000}), ("bad", {"top_p": 2.0})]
            await _rest(client.generate_many(requests))

    with pytest.raises(RequestError, match="top_p"):
        asyncio.run(asyncio.wait_for(read(), 120))


async def _rest(events: AsyncIterator[object]) -> None:
    async for _ in events:
        pass


def test_on_a_loop_leaving_ends_the_call_and_closing_the_client_is_told(address: str) -> None:
    endless: list[tuple[str, Asked]] = [(str(i), {"max_tokens": 1_000_000}) for i in range(20)]

    async def read() -> None:
        async with AsyncClient(address) as client:
            async with aclosing(client.generate_many(endless)) as events:
                await anext(events)
            assert [connection.num_live for connection in client._channels._connections] == [0]
            events = client.generate_many(endless)
            await anext(events)
            await client.close()
            with pytest.raises(ServerError, match="client was closed"):
                await _rest(events)

    asyncio.run(asyncio.wait_for(read(), 120))

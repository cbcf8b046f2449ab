"""Many texts on one call of a real server."""

from __future__ import annotations

import asyncio
import queue
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from charrnn import AsyncClient, Client
from charrnn.calls import Asked
from charrnn.errors import CharrnnError, RequestError, ServerError
from charrnn.stream import Chunk, Event, Finished, Started
from tests.fakes import fake_server
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

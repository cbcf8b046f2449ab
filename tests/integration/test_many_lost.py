"""Many texts on one call outlive its server: each is read once and whole, for threads and for asyncio."""

from __future__ import annotations

import asyncio
import queue
import signal
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from charrnn import AsyncClient, Client
from charrnn.calls import Asked
from charrnn.errors import CharrnnError, ServerError, ServerUnavailableError
from charrnn.stream import Chunk, Event, Finished, Started
from charrnn.texts import Request
from tests.integration.test_server_lost import end, free_port, key_file, num_steps, serve

LENGTH, LONGEST = 4_000, 900_000
both = pytest.mark.parametrize("is_async", [False, True], ids=["threads", "asyncio"])


class Server:
    """One that is lost and comes back on the same port."""

    def __init__(self, bundle: Path, *options: str) -> None:
        self._bundle, self._options, self.port = bundle, options, free_port()
        self._server = serve(bundle, self.port, *options)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self, number: int = signal.SIGKILL) -> None:
        end(self._server, number)

    def restart(self, number: int = signal.SIGKILL) -> None:
        self.close(number)
        self._server = serve(self._bundle, self.port, *self._options)


class Reader:
    """What is read of many texts; ``watch`` sees each answer."""

    def __init__(self, watch: Callable[[str, Event | CharrnnError], None] = lambda name, event: None) -> None:
        self.got: dict[str, list[Event | CharrnnError]] = defaultdict(list)
        self._watch = watch

    def read(
        self, address: str, requests: Iterable[Request], *, is_async: bool, resume_s: float = 60
    ) -> None:
        if is_async:
            asyncio.run(asyncio.wait_for(self._read(address, requests, resume_s), 120))
            return
        with Client(address, resume_s=resume_s) as client:
            for name, event in client.generate_many(requests):
                self._take(name, event)

    async def _read(self, address: str, requests: Iterable[Request], resume_s: float) -> None:
        async with AsyncClient(address, resume_s=resume_s) as client:
            async for name, event in client.generate_many(on_a_thread(requests)):
                self._take(name, event)

    def _take(self, name: str, event: Event | CharrnnError) -> None:
        self.got[name].append(event)
        self._watch(name, event)

    def num_chars(self) -> int:
        return sum(
            part.num_chars for events in self.got.values() for part in events if isinstance(part, Chunk)
        )

    def check(self, address: str, asked: dict[str, Asked]) -> None:
        """Each text is the one that a call of its own gives, in order, with one beginning and one end."""
        assert self.got.keys() == asked.keys()
        with Client(address) as client:
            seeds = {
                name: events[0].seed for name, events in self.got.items() if isinstance(events[0], Started)
            }
            alone = {name: client.generate(**(asked[name] | {"seed": seeds[name]})) for name in asked}  # type: ignore[misc]
            for name, (_, *parts, last) in self.got.items():
                chunks = [part for part in parts if isinstance(part, Chunk)]
                assert len(chunks) == len(parts)
                assert "".join(part.text for part in chunks) == alone[name].read()
                assert isinstance(last, Finished)
                offsets = [part.offset + part.num_chars for part in chunks]
                assert [part.offset for part in chunks] == [0, *offsets[:-1]]
                assert (last.reason, last.num_chars) == ("length", offsets[-1])


def with_seed(asked: Asked, first: Event | CharrnnError) -> Asked:
    assert isinstance(first, Started)
    return {**asked, "seed": first.seed}


async def on_a_thread(requests: Iterable[Request]) -> AsyncIterator[Request]:
    iterator = iter(requests)
    while (request := await asyncio.to_thread(next, iterator, None)) is not None:
        yield request


def some(count: int, length: int = LENGTH) -> dict[str, Asked]:
    """With seeds and without, of several prompts and lengths."""
    asked: dict[str, Asked] = {}
    for i in range(count):
        asked[str(i)] = {"prompt": "The "[: i % 5], "max_tokens": length + i, "chunk_chars": 40 + i}
        if i % 2:
            asked[str(i)]["seed"] = i
    return asked


@pytest.fixture
def server(tiny_bundle: Path) -> Iterator[Server]:
    with closing(Server(tiny_bundle, "--workers", "2")) as made:
        yield made


@both
def test_every_text_goes_on_after_kill_9(server: Server, is_async: bool) -> None:
    kill_at = [300, 1_500]

    def watch(name: str, event: object) -> None:
        if kill_at and sum(map(len, reader.got.values())) >= kill_at[0]:
            kill_at.pop(0)
            server.restart()

    reader, asked = Reader(watch), some(40)
    reader.read(server.address, asked.items(), is_async=is_async)
    assert not kill_at
    assert num_steps(server.address) >= LENGTH
    reader.check(server.address, asked)


@both
def test_what_a_server_hands_over_goes_on_where_it_was(
    tiny_bundle: Path, tmp_path: Path, is_async: bool
) -> None:
    asked = some(4, 20_000)
    with closing(Server(tiny_bundle, "--resume-key-file", key_file(tmp_path))) as server:
        with ThreadPoolExecutor(1) as pool:
            stopped = []

            def watch(name: str, event: object) -> None:
                if not stopped and reader.num_chars() > 4 * 15_000:
                    stopped.append(pool.submit(server.restart, signal.SIGTERM))

            reader = Reader(watch)
            reader.read(server.address, asked.items(), is_async=is_async)
        assert [done.result() for done in stopped] == [None]
        # From the beginning it would have been one for each character.
        assert num_steps(server.address) < 20_000
        reader.check(server.address, asked)


@both
def test_requests_that_are_waited_for_meanwhile_go_to_the_next_server(server: Server, is_async: bool) -> None:
    asked, first, second = some(15), list(some(10)), []
    requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
    for name in first:
        requests.put((name, asked[name]))
    ended: set[str] = set()

    def watch(name: str, event: Event | CharrnnError) -> None:
        if sum(map(len, reader.got.values())) == 100:
            server.restart()
        if not isinstance(event, Started | Chunk):
            ended.add(name)
        if len(ended) == 10 and not second:
            server.restart()  # while nothing is under way
            second.extend(asked.keys() - first)
            for other in second:
                requests.put((other, asked[other]))
            requests.put(None)

    reader = Reader(watch)
    reader.read(server.address, iter(requests.get, None), is_async=is_async)
    reader.check(server.address, asked)


@both
def test_the_loss_is_told_if_nobody_comes_back(server: Server, is_async: bool) -> None:
    lost_at = []

    def watch(name: str, event: object) -> None:
        if reader.num_chars() and not lost_at:
            server.close()
            lost_at.append(time.monotonic())

    reader = Reader(watch)
    with pytest.raises(ServerUnavailableError):
        reader.read(server.address, some(10).items(), is_async=is_async, resume_s=0.5)
    assert time.monotonic() - lost_at[0] >= 0.5
    assert not any(isinstance(events[-1], Finished | CharrnnError) for events in reader.got.values())


@both
def test_without_resuming_the_loss_is_told_whoever_comes_back(server: Server, is_async: bool) -> None:
    lost = []

    def watch(name: str, event: object) -> None:
        if reader.num_chars() and not lost:
            lost.append(server.restart())

    reader = Reader(watch)
    with pytest.raises(ServerUnavailableError):
        reader.read(server.address, some(10).items(), is_async=is_async, resume_s=0)
    assert num_steps(server.address) == 0


@both
def test_what_the_requests_raise_is_raised_while_nobody_is_there(server: Server, is_async: bool) -> None:
    is_lost = threading.Event()

    def requests() -> Iterator[Request]:
        yield from some(1, LONGEST).items()  # which are sent by the time that anything comes
        is_lost.wait()
        raise KeyError("of the caller's")

    def watch(name: str, event: object) -> None:
        if not is_lost.is_set():
            server.close()
            is_lost.set()

    with pytest.raises(KeyError, match="of the caller's"):
        Reader(watch).read(server.address, requests(), is_async=is_async)


def test_a_client_that_is_closed_while_nobody_is_there_ends_its_texts(server: Server) -> None:
    with Client(server.address, resume_s=600) as client:
        events = client.generate_many(some(3, LONGEST).items())
        next(events)
        server.close()
        closing_later = threading.Timer(1, client.close)
        closing_later.start()
        with pytest.raises(ServerError):
            list(events)
        closing_later.join()


def test_a_task_that_is_cancelled_while_nobody_is_there_ends(server: Server) -> None:
    async def read() -> None:
        async with AsyncClient(server.address, resume_s=600) as client:
            events = client.generate_many(some(3, LONGEST).items())
            await anext(events)
            server.close()
            waiting = asyncio.create_task(_rest(events))
            await asyncio.sleep(1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert [connection.num_live for connection in client._channels._connections] == [0]

    asyncio.run(asyncio.wait_for(read(), 60))


async def _rest(events: AsyncIterator[object]) -> None:
    async for _ in events:
        pass

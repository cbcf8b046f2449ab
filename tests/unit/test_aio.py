"""The asyncio client against a server without a model: what ``Client`` promises, awaited."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import grpc
import pytest

from charrnn import AsyncClient, AsyncStream, Chunk, Client
from charrnn._pb import charrnn_pb2 as pb
from charrnn.calls import ERRORS
from charrnn.errors import CharrnnError, RequestError, ServerBusyError, ServerError, ServerUnavailableError
from tests.fakes import FINISHED, chunk, fake_server, started
from tests.unit.test_resuming import TEXT, handing_over, losing


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 60))


class Waiting:
    """A server that sends one chunk and then nothing until its caller is gone."""

    def __init__(self) -> None:
        self.is_abandoned = threading.Event()

    def __call__(self, request: pb.GenerateRequest, context: Any) -> Iterator[pb.GenerateResponse]:
        context.add_callback(self.is_abandoned.set)
        yield started()
        yield chunk("a")
        self.is_abandoned.wait(60)


def test_a_text_comes_in_chunks_with_seed_model_and_end() -> None:
    async def read(address: str) -> None:
        async with AsyncClient(address) as client, client.generate("p", max_tokens=3) as stream:
            assert await stream.started() == await stream.started()
            assert (await stream.started()).seed == 7
            assert [part async for part in stream] == [Chunk("text", 0, 4)]
            assert stream.finished is not None
            assert stream.finished.reason == "length"
            assert await stream.read() == ""

    with fake_server() as address:
        run(read(address))


def test_a_text_goes_on_with_the_token_of_a_server_that_stopped() -> None:
    async def read(address: str) -> str:
        async with AsyncClient(address) as client:
            return await client.generate("p", max_tokens=5000).read()

    generate, requests = handing_over(["drain 7", "lose 12", "refuse INVALID_ARGUMENT", "drain 20"])
    with fake_server(generate) as address:
        assert run(read(address)) == TEXT
    starts = [request.prompt or request.resume_token.decode() for request in requests]
    assert starts == ["p", "7", "7", "p", "20"]


@pytest.mark.parametrize("breaks", [[], [0], [1], [30], [12, 7, 20], [29, 1, 2, 30]])
def test_a_reader_does_not_notice_a_lost_server(breaks: list[int]) -> None:
    async def read(address: str) -> str:
        async with AsyncClient(address) as client:
            return await client.generate("p").read()

    generate, requests = losing(breaks)
    with fake_server(generate) as address:
        assert run(read(address)) == TEXT
    assert {request.sampling.seed for request in requests[1:]} <= {99}
    assert len(requests) == len(breaks) + 1


def test_it_gives_up_in_the_end() -> None:
    async def read(address: str) -> None:
        async with AsyncClient(address, resume_s=0.3) as client:
            await client.generate().read()

    generate, requests = losing([5] * 100)
    with fake_server(generate) as address, pytest.raises(ServerUnavailableError, match="stopping"):
        run(read(address))
    assert len(requests) > 2


@pytest.mark.parametrize("code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL])
def test_a_status_becomes_an_exception(code: grpc.StatusCode) -> None:
    def generate(request: pb.GenerateRequest, context: Any) -> Iterator[pb.GenerateResponse]:
        context.abort(code, "what\nis wrong")
        yield started()

    async def read(address: str) -> None:
        async with AsyncClient(address) as client:
            await client.generate().read()

    with fake_server(generate) as address, pytest.raises(ERRORS[code], match=r"^what is wrong$"):
        run(read(address))


def test_a_text_that_breaks_off_is_an_error() -> None:
    def generate(request: pb.GenerateRequest, context: Any) -> Iterator[pb.GenerateResponse]:
        yield started()

    async def read(address: str) -> None:
        async with AsyncClient(address) as client:
            await client.generate().read()

    with fake_server(generate) as address, pytest.raises(ServerError, match="without saying why"):
        run(read(address))


def test_a_wrong_setting_is_refused_as_by_the_other_client() -> None:
    for given in ({"address": "nowhere"}, {"timeout": 0.0}, {"resume_s": -1.0}, {"attempts": 6}):
        for client in (Client, AsyncClient):
            with pytest.raises(RequestError):
                client(**({"address": "127.0.0.1:1"} | given))  # type: ignore[arg-type]


def test_models() -> None:
    async def ask(address: str) -> list[str]:
        async with AsyncClient(address) as client:
            return [model.name for model in await client.models()]

    model = pb.Model(name="m", vocab=pb.Vocab(unit=pb.UNIT_CHAR, symbols=[97]))
    with fake_server(models=(model,)) as address:
        assert run(ask(address)) == ["m"]
    with pytest.raises(ServerUnavailableError, match="no server answers"):
        run(ask("127.0.0.1:1"))


@pytest.mark.parametrize("end", ["close", "leave", "task", "garbage"])
def test_an_abandoned_text_is_cancelled_on_the_server(end: str) -> None:
    async def abandon(stream: AsyncStream) -> None:
        assert (await anext(stream)).text == "a"
        if end == "close":
            asyncio.get_running_loop().call_later(0.05, stream.close)
            assert await stream.read() == ""  # closed while it waited
        elif end == "leave":
            await stream.__aexit__(None, None, None)
        elif end == "task":
            task = asyncio.create_task(stream.read())
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    async def read(address: str) -> None:
        async with AsyncClient(address) as client:
            await abandon(client.generate())
            gc.collect()
            while not generate.is_abandoned.is_set():
                await asyncio.sleep(0.01)

    generate = Waiting()
    with fake_server(generate) as address:
        run(read(address))


def test_a_closed_client_is_told_so() -> None:
    async def read(address: str) -> None:
        async with AsyncClient(address) as client:
            stream = client.generate()
            await anext(stream)
        with pytest.raises(ServerError):
            await stream.read()
        with pytest.raises(CharrnnError, match="closed"):
            client.generate()

    with fake_server(Waiting()) as address:
        run(read(address))


def test_hundreds_of_texts_on_one_loop() -> None:
    async def read(address: str) -> list[str]:
        async with AsyncClient(address) as client:
            return await asyncio.gather(*(client.generate().read() for _ in range(250)))

    with fake_server() as address:
        assert run(read(address)) == ["text"] * 250


class Busy:
    """A server whose queue is full for the first calls."""

    def __init__(self, num_refused: int) -> None:
        self.num_refused, self.num_calls = num_refused, 0

    def __call__(self, request: pb.GenerateRequest, context: Any) -> Iterator[pb.GenerateResponse]:
        self.num_calls += 1
        if self.num_calls <= self.num_refused:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        yield from (started(), chunk("text"), FINISHED)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_call_that_nobody_began_is_sent_again_as_often_as_told(is_async: bool) -> None:
    async def awaited(address: str, attempts: int) -> str:
        async with AsyncClient(address, attempts=attempts) as client:
            return await client.generate().read()

    def read(address: str, attempts: int) -> str:
        if is_async:
            return str(run(awaited(address, attempts)))
        with Client(address, attempts=attempts) as client:
            return client.generate().read()

    for attempts, num_refused in ((1, 1), (3, 3)):
        busy = Busy(num_refused)
        with fake_server(busy) as address, pytest.raises(ServerBusyError, match="full"):
            read(address, attempts)
        assert busy.num_calls == attempts
    busy = Busy(2)
    with fake_server(busy) as address:
        assert read(address, 3) == "text"
    assert busy.num_calls == 3


class Counting(grpc.UnaryStreamClientInterceptor, grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    """Sees every call."""

    def __init__(self) -> None:
        self.methods: list[str] = []

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        self.methods.append(details.method)
        return continuation(details, request)

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self.methods.append(details.method)
        return continuation(details, request)


class AsyncCounting(grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[misc]
    """Sees every text."""

    def __init__(self) -> None:
        self.methods: list[str] = []

    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        self.methods.append(details.method.decode())
        return await continuation(details, request)


def test_interceptors_see_every_call() -> None:
    seen, awaited = Counting(), AsyncCounting()

    async def read(address: str) -> None:
        async with AsyncClient(address, interceptors=[awaited]) as client:
            assert await client.generate().read() == "text"

    with fake_server() as address:
        with Client(address, interceptors=[seen]) as client:
            client.models()
            assert client.generate().read() == "text"
        run(read(address))
    assert seen.methods == ["/charrnn.v1.CharRnn/ListModels", "/charrnn.v1.CharRnn/Generate"]
    assert awaited.methods == ["/charrnn.v1.CharRnn/Generate"]


def test_a_text_closed_while_it_waits_to_be_asked_for_again_ends() -> None:
    async def read(address: str) -> float:
        async with AsyncClient(address, resume_s=600) as client:
            stream = client.generate()
            await anext(stream)
            asyncio.get_running_loop().call_later(0.3, stream.close)
            began = time.monotonic()
            await stream.read()
            return time.monotonic() - began

    generate, _ = losing([5] * 1000)
    with fake_server(generate) as address:
        run(read(address))

"""Many texts on one call, and on another when its server is lost: what waits, for threads and for asyncio.

The requests are read by a thread or task of their own, which outlives a call: while it waits for them texts
are asked for again, and what it reads in the end goes on the call that is there then.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable, Iterator
from contextlib import aclosing, suppress
from typing import Any

import grpc
import grpc.aio

from charrnn._pb import charrnn_pb2 as pb
from charrnn.channels import Channels
from charrnn.errors import CharrnnError
from charrnn.resuming import HandedOverError
from charrnn.stream import Chunk
from charrnn.texts import Answer, Request, Texts

_METHOD: tuple[str, Any, Any] = (
    "/charrnn.v1.CharRnn/GenerateMany",
    pb.GenerateRequest.SerializeToString,
    pb.GenerateResponse.FromString,
)


class Calls:
    """The calls of ``GenerateMany`` for some texts, one after the other, for a thread.

    Args:
        requests: read from a thread, as fast as the server takes them; what they raise ends the call.
    """

    def __init__(self, channels: Channels[grpc.Channel], requests: Iterable[Request], texts: Texts) -> None:
        self._channels, self._requests, self._texts = channels, requests, texts
        self._problem: BaseException | None = None
        self._is_closed = False
        # Holds the texts; told when there is something to send or to read, or nothing will be.
        self._changed = threading.Condition()

    def answers(self) -> Generator[Answer, None, None]:
        """All answers; ends when the requests have ended and every text has. Closing it ends the call.

        Raises:
            grpc.RpcError, HandedOverError: what ended the last call, if the requests did not.
        """
        threading.Thread(target=self._read, name="charrnn-requests", daemon=True).start()
        try:
            yield from self._calls()
        except (grpc.RpcError, HandedOverError):
            if self._problem is not None:
                raise self._problem from None
            with self._changed:
                ends = self._texts.ends()
            yield from ends
            if not self._texts.is_over:
                raise
        finally:
            with self._changed:
                self._is_closed = True
                self._changed.notify_all()

    def _calls(self) -> Iterator[Answer]:
        channel = self._channels.lease()
        while True:
            try:
                yield from self._call(channel)
                return
            except (grpc.RpcError, HandedOverError) as error:
                if not self._goes_on(error):
                    raise
                try:
                    channel = self._channels.lease()
                except CharrnnError:  # the client is closed
                    raise error from None

    def _call(self, channel: grpc.Channel) -> Iterator[Answer]:
        ended = threading.Event()
        call = channel.stream_stream(*_METHOD)(self._outgoing(ended), timeout=self._texts.left_s)
        try:
            for response in call:
                if (answer := self._take(response)) is not None:
                    yield answer
                self._texts.check()
        finally:
            with self._changed:
                ended.set()
                self._changed.notify_all()
            call.cancel()
            self._channels.release(channel)

    def _take(self, response: pb.GenerateResponse) -> Answer | None:
        with self._changed:
            answer = self._texts.take(response)
            if answer is None or not isinstance(answer[1], Chunk):  # which is most, and no news to the sender
                self._changed.notify_all()
        return answer

    def _goes_on(self, error: Any) -> bool:
        """Whether the texts are to be asked for again, once it is time to."""
        with self._changed:
            if (pause := self._texts.pause_after(error)) is None:
                return False
            self._changed.wait_for(lambda: self._problem, pause)
            self._texts.begin_again()
            return self._problem is None and not self._texts.is_over

    def _outgoing(self, ended: threading.Event) -> Iterator[pb.GenerateRequest]:
        while (request := self._next(ended)) is not None:
            yield request
        if self._problem is not None and not ended.is_set():
            # gRPC keeps the exception to itself and cancels the call.
            raise self._problem

    def _next(self, ended: threading.Event) -> pb.GenerateRequest | None:
        """What is to be sent next, once there is something; nothing if the call or all texts are over."""
        with self._changed:
            while not (ended.is_set() or self._problem or self._texts.is_over):
                if (request := self._texts.next()) is not None:
                    self._changed.notify_all()
                    return request
                self._changed.wait(self._texts.wait_s)
        return None

    def _read(self) -> None:
        try:
            for request in self._requests:
                with self._changed:
                    self._texts.ask(*request)
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._is_closed or not self._texts.has_unsent)
                    if self._is_closed:
                        return
        except BaseException as problem:
            self._problem = problem
        finally:
            with self._changed:
                self._texts.have_all = True
                self._changed.notify_all()


class AsyncCalls:
    """The same for asyncio: the requests are read by a task of the same loop."""

    def __init__(
        self,
        channels: Channels[grpc.aio.Channel],
        requests: Iterable[Request] | AsyncIterable[Request],
        texts: Texts,
    ) -> None:
        self._channels, self._requests, self._texts = channels, requests, texts
        self._problem: BaseException | None = None
        self._changed = asyncio.Event()

    async def answers(self) -> AsyncGenerator[Answer, None]:
        """As ``Calls.answers``.

        Raises:
            grpc.RpcError, HandedOverError: what ended the last call, if the requests did not.
            asyncio.CancelledError: also if the client was closed.
        """
        reading = asyncio.create_task(self._read())
        try:
            async with aclosing(self._calls()) as answers:
                async for answer in answers:
                    yield answer
        except (grpc.RpcError, HandedOverError, asyncio.CancelledError) as error:
            if self._problem is not None:
                raise self._problem from None
            if isinstance(error, asyncio.CancelledError):
                raise
            for answer in self._texts.ends():
                yield answer
            if not self._texts.is_over:
                raise
        finally:
            reading.cancel()

    async def _calls(self) -> AsyncGenerator[Answer, None]:
        channel = self._channels.lease()
        while True:
            try:
                async with aclosing(self._call(channel)) as answers:
                    async for answer in answers:
                        yield answer
                return
            except (grpc.RpcError, HandedOverError) as error:
                if not await self._goes_on(error):
                    raise
                try:
                    channel = self._channels.lease()
                except CharrnnError:  # the client is closed
                    raise error from None

    async def _call(self, channel: grpc.aio.Channel) -> AsyncGenerator[Answer, None]:
        ended = asyncio.Event()
        call = channel.stream_stream(*_METHOD)(self._outgoing(ended), timeout=self._texts.left_s)
        try:
            async for response in call:
                answer = self._texts.take(response)
                if answer is None or not isinstance(answer[1], Chunk):
                    self._changed.set()
                if answer is not None:
                    yield answer
                self._texts.check()
        finally:
            ended.set()
            self._changed.set()
            call.cancel()
            self._channels.release(channel)

    async def _goes_on(self, error: Any) -> bool:
        """Whether the texts are to be asked for again, once it is time to."""
        if (pause := self._texts.pause_after(error)) is None:
            return False
        await asyncio.sleep(pause)
        self._texts.begin_again()
        return self._problem is None and not self._texts.is_over

    async def _outgoing(self, ended: asyncio.Event) -> AsyncIterator[pb.GenerateRequest]:
        while not (ended.is_set() or self._problem or self._texts.is_over):
            if (request := self._texts.next()) is not None:
                self._changed.set()
                yield request
            else:
                await self._change(self._texts.wait_s)
        if self._problem is not None and not ended.is_set():
            raise self._problem

    async def _read(self) -> None:
        try:
            async for request in _each(self._requests):
                self._texts.ask(*request)
                self._changed.set()
                while self._texts.has_unsent:
                    await self._change()
        except BaseException as problem:
            self._problem = problem
        finally:
            self._texts.have_all = True
            self._changed.set()

    async def _change(self, timeout: float | None = None) -> None:
        """Until something is new, or the time is over."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._changed.wait()


async def _each(requests: Iterable[Request] | AsyncIterable[Request]) -> AsyncIterator[Request]:
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield request
    else:
        for request in requests:
            yield request

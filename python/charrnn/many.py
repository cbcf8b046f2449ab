"""Many texts on one call: requests go out as they are made, events come in with the id of their text.

Such a call is not resumed: which texts to ask for again, when its server is lost, is its caller's to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable, Iterator
from typing import Any, TypeAlias

import grpc
import grpc.aio

from charrnn._pb import charrnn_pb2 as pb
from charrnn.calls import Asked, one_of_many, refusal
from charrnn.channels import Channels
from charrnn.errors import CharrnnError
from charrnn.stream import Event
from charrnn.wire import to_event

Request: TypeAlias = tuple[str, Asked | None]
"""An id, and what to ask for; ``None`` cancels the text of that id."""
Answer: TypeAlias = tuple[str, Event | CharrnnError]
"""What happened to the text of an id."""

_METHOD: tuple[str, Any, Any] = (
    "/charrnn.v1.CharRnn/GenerateMany",
    pb.GenerateRequest.SerializeToString,
    pb.GenerateResponse.FromString,
)


class Call:
    """One call of ``GenerateMany``, for a thread.

    Args:
        requests: read from a thread of gRPC's, as fast as the server takes them; what they raise ends
            the call.
        timeout: seconds for all texts; ``None`` for no limit.
    """

    def __init__(
        self, channels: Channels[grpc.Channel], requests: Iterable[Request], timeout: float | None
    ) -> None:
        self._channels, self._requests, self._timeout = channels, requests, timeout
        self._problem: BaseException | None = None

    def answers(self) -> Generator[Answer, None, None]:
        """All answers; ends when the requests have ended and every text has. Closing it ends the call.

        Raises:
            grpc.RpcError: what ended the call, if the requests did not.
        """
        channel = self._channels.lease()
        call = channel.stream_stream(*_METHOD)(self._outgoing(), timeout=self._timeout)
        try:
            for response in call:
                if (answer := _answer(response)) is not None:
                    yield answer
        except grpc.RpcError:
            if self._problem is not None:
                raise self._problem from None
            raise
        finally:
            call.cancel()
            self._channels.release(channel)

    def _outgoing(self) -> Iterator[pb.GenerateRequest]:
        try:
            for request in self._requests:
                yield one_of_many(*request)
        except Exception as problem:
            # gRPC keeps the exception to itself and cancels the call.
            self._problem = problem
            raise


class AsyncCall:
    """The same for asyncio: the requests are read by a task of gRPC's on the same loop."""

    def __init__(
        self,
        channels: Channels[grpc.aio.Channel],
        requests: Iterable[Request] | AsyncIterable[Request],
        timeout: float | None,
    ) -> None:
        self._channels, self._requests, self._timeout = channels, requests, timeout
        self._problem: BaseException | None = None

    async def answers(self) -> AsyncGenerator[Answer, None]:
        """As ``Call.answers``.

        Raises:
            grpc.RpcError: what ended the call, if the requests did not.
            asyncio.CancelledError: also if the client was closed.
        """
        channel = self._channels.lease()
        call = channel.stream_stream(*_METHOD)(self._outgoing(), timeout=self._timeout)
        try:
            async for response in call:
                if (answer := _answer(response)) is not None:
                    yield answer
        except (grpc.RpcError, asyncio.CancelledError):
            if self._problem is not None:
                raise self._problem from None
            raise
        finally:
            call.cancel()
            self._channels.release(channel)

    async def _outgoing(self) -> AsyncIterator[pb.GenerateRequest]:
        try:
            async for request in _each(self._requests):
                yield one_of_many(*request)
        except Exception as problem:
            self._problem = problem
            raise


async def _each(requests: Iterable[Request] | AsyncIterable[Request]) -> AsyncIterator[Request]:
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield request
    else:
        for request in requests:
            yield request


def _answer(response: pb.GenerateResponse) -> Answer | None:
    """Nothing if it is of a later version of the service."""
    if response.WhichOneof("event") == "refused":
        return response.request_id, refusal(response.refused)
    event = to_event(response)
    return None if event is None else (response.request_id, event)

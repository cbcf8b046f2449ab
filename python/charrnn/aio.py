"""``charrnn.client`` for asyncio: the same calls, awaited.

Knows how calls are made on a loop; what is asked, what may be resumed and what an error means are shared.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Unpack

import grpc
import grpc.aio

from charrnn._pb import charrnn_pb2 as pb
from charrnn.access import Access, ConnectionFields
from charrnn.addresses import check_address
from charrnn.calls import GenerateFields, ScoreFields, Settings, request_of
from charrnn.channels import Channels
from charrnn.errors import CharrnnError, ServerError
from charrnn.many import AsyncCalls
from charrnn.resuming import HandedOverError, Progress
from charrnn.sampler import SamplingParams
from charrnn.score import Score
from charrnn.stream import Chunk, Event, Finished, Started
from charrnn.texts import Answer, Request, Texts
from charrnn.wire import Model, method, to_model, to_score, to_score_request

__all__ = ["AsyncClient", "AsyncStream"]


class AsyncClient:
    """``charrnn.Client`` for asyncio; make and use it within one running loop.

    Args:
        address, timeout, resume_s, attempts: as of ``charrnn.Client``.
        interceptors: gRPC's for asyncio.
        connection: as of ``charrnn.Client``.

    Raises:
        RequestError, ConfigError: as ``charrnn.Client``.

    Example:
        >>> async with AsyncClient("127.0.0.1:50051") as client:  # doctest: +SKIP
        ...     async for chunk in client.generate("ROMEO:", max_tokens=200):
        ...         print(chunk.text, end="", flush=True)
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float | None = None,
        resume_s: float = 10.0,
        attempts: int = 1,
        interceptors: Sequence[Any] = (),
        **connection: Unpack[ConnectionFields],
    ) -> None:
        access = Access.of(check_address(address), connection)
        settings = Settings(address, timeout=timeout, resume_s=resume_s, attempts=attempts, access=access)
        self._settings, options = settings, settings.options()
        self._channels = Channels(lambda: access.connect_aio(address, options, interceptors))

    def generate(
        self, prompt: str = "", params: SamplingParams | None = None, **fields: Unpack[GenerateFields]
    ) -> AsyncStream:
        """Ask for one text, as ``charrnn.Client.generate`` does.

        Returns at once: what the server refuses is raised by the first read.

        Raises:
            RequestError: a parameter out of its limits.
        """
        settings = self._settings
        request = request_of(prompt, params, fields, resumes=settings.resume_s > 0)
        resumable = fields.get("resumable", False)
        progress = Progress(request, settings.timeout, settings.resume_s, resumable=resumable)
        return AsyncStream(self._channels, settings, progress)

    async def generate_many(
        self, requests: Iterable[Request] | AsyncIterable[Request]
    ) -> AsyncGenerator[Answer, None]:
        """Ask for many texts on one call, as ``charrnn.Client.generate_many`` does.

        Args:
            requests: as there, or asynchronous ones: a queue's, for instance, that this loop fills. A task of
                this loop reads them, so plain ones must not wait.

        Yields:
            What happened to the text of an id: ``Started``, ``Chunk``..., ``Finished``; or, as the last of
            it, the error that ``generate`` would have raised. A loop that is left early leaves the call to
            garbage collection; ``contextlib.aclosing`` ends it, with all its texts, at once.

        Raises:
            RequestError: a parameter out of its limits.
            ServerBusyError, ServerUnavailableError, ServerError: what ended the whole call.
            Exception: whatever ``requests`` raise.
        """
        texts = Texts(self._settings.timeout, self._settings.resume_s)
        calls = AsyncCalls(self._channels, requests, texts)
        try:
            async with aclosing(calls.answers()) as answers:
                async for answer in answers:
                    yield answer
        except grpc.RpcError as error:
            raise await _told(self._settings, error) from error
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            raise ServerError("the client was closed before the texts were complete") from None
        if not texts.is_over:
            raise self._settings.broken_off()

    async def models(self) -> list[Model]:
        """The models this server holds.

        Raises:
            ServerUnavailableError: no server answers.
        """
        response: pb.ListModelsResponse = await self._call("ListModels", pb.ListModelsRequest())
        return [to_model(model) for model in response.models]

    async def score(self, text: str | Sequence[int], **fields: Unpack[ScoreFields]) -> Score:
        """How likely a text is; the model reads it and draws nothing.

        Args:
            text: at least one character, or token ids.
            fields: ``prompt``, ``per_symbol``, ``top_logprobs``, ``model``, ``version``: see
                ``charrnn.calls.ScoreFields``.

        Raises:
            RequestError: an unknown model or character, a text that is empty or too long.
            ServerBusyError, ServerUnavailableError, ServerError: no score.
        """
        response: pb.ScoreResponse = await self._call("Score", to_score_request(text, **fields))
        return to_score(response)

    async def close(self) -> None:
        """Close the connections; texts that are not complete end with a ``ServerError``."""
        for channel in self._channels.close():
            await channel.close()

    async def _call(self, name: str, request: Any) -> Any:
        channel = self._channels.lease()
        try:
            return await channel.unary_unary(*method(name))(request, timeout=self._settings.timeout)
        except grpc.RpcError as error:
            raise await _told(self._settings, error) from error
        finally:
            self._channels.release(channel)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class AsyncStream(AsyncIterator[Chunk]):
    """One text, chunk by chunk, for one task.

    Leaving the ``async with`` block, ``close()``, cancelling the task that reads and garbage collection all
    cancel what is not finished: a server stops working on it at once.

    Raises:
        CharrnnError: from the first read on, whatever ended the text early; see ``charrnn.errors``.
    """

    def __init__(self, channels: Channels[grpc.aio.Channel], settings: Settings, progress: Progress) -> None:
        self._settings = settings
        self._call = _Call(channels, progress)
        self._events = _events(self._call, progress)
        self._started: Started | None = None
        self._finished: Finished | None = None
        self._cancel = weakref.finalize(self, self._call.cancel)

    async def started(self) -> Started:
        """The model and the seed in use, once the request is accepted.

        Raises:
            CharrnnError: it was refused, or the stream closed before.
        """
        if self._started is None and isinstance(event := await self._pull(), Started):
            self._started = event
        if self._started is None:
            raise CharrnnError("the stream was closed before it started")
        return self._started

    @property
    def finished(self) -> Finished | None:
        """Why the text ended, once it is complete; ``None`` before, and for a text cut short."""
        return self._finished

    async def read(self) -> str:
        """All that is left of the text."""
        return "".join([chunk.text async for chunk in self])

    def close(self) -> None:
        """Stop the text where it is; does nothing when it has ended."""
        self._cancel()

    async def _pull(self) -> Event | None:
        """The next event; ``None`` once the stream has ended or was closed, also while waiting."""
        if not self._cancel.alive:
            return None
        try:
            return await anext(self._events)
        except StopAsyncIteration:
            raise self._settings.broken_off() from None
        except BaseException as error:
            was_closed = not self._cancel.alive
            self.close()
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                raise
            if was_closed:
                return None
            if isinstance(error, grpc.RpcError):
                raise await _told(self._settings, error) from error
            if isinstance(error, asyncio.CancelledError):
                raise ServerError("the client was closed before the text was complete") from None
            raise

    async def __anext__(self) -> Chunk:
        while event := await self._pull():
            match event:
                case Started():
                    self._started = event
                case Chunk():
                    return event
                case Finished():
                    self._finished = event
                    self.close()
        raise StopAsyncIteration

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def _told(settings: Settings, error: grpc.RpcError) -> CharrnnError:
    """What an error means, on a thread: to find out why a connection failed takes a while."""
    return await asyncio.to_thread(settings.error, error)


class _Call:
    """The call under way for one text."""

    def __init__(self, channels: Channels[grpc.aio.Channel], progress: Progress) -> None:
        self._channels, self._progress = channels, progress
        self.is_cancelled = False
        self.ask()

    def ask(self) -> None:
        self._channel = self._channels.lease()
        generate = self._channel.unary_stream(*method("Generate"))
        self.responses = generate(self._progress.request, timeout=self._progress.left_s)

    def ask_again(self) -> None:
        self._progress.begin_again()
        self._channels.release(self._channel)
        self.ask()

    def cancel(self) -> None:
        self.is_cancelled = True
        self.responses.cancel()
        self._channels.release(self._channel)


async def _events(call: _Call, progress: Progress) -> AsyncIterator[Event]:
    """Started, chunks without gap or overlap, Finished."""
    while True:
        try:
            async for response in call.responses:
                if (event := progress.take(response)) is not None:
                    yield event
            return
        except (grpc.RpcError, HandedOverError) as error:
            if (pause := progress.pause_after(error)) is None:
                if (end := progress.end) is None:
                    raise
                yield end
                return
            await asyncio.sleep(pause)
            if call.is_cancelled:
                raise
            try:
                call.ask_again()
            except CharrnnError:  # the client is closed
                raise error from None


def _is_cancelled() -> bool:
    """Whether somebody wants this task to end, as against the call that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0

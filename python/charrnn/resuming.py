"""One text asked of a server, and asked for again when the server is lost while it comes.

A text depends only on the model, the prompt, the parameters and the seed. So another server, or the same one
started anew, gives the same text for the seed that the first one told; what was read already is left out. A
server that stops in order, or gives up a slow reader, gives a token besides, with which one of the same key
goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import grpc

from charrnn._pb import charrnn_pb2 as pb
from charrnn.channels import Channels
from charrnn.errors import CharrnnError, ServerError, ServerUnavailableError
from charrnn.patience import Patience
from charrnn.stream import Chunk, Event, Finished, Started
from charrnn.wire import method, to_event

OTHER_TEXT = "the server was lost, and the one there now gives another text for the same seed: another model?"
# A server with another key or another model says this of a token.
_TOKEN_REFUSED = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)
# The reasons of a text that goes on with the token it ends with.
_HANDED_OVER = ("drained", "stalled")
# What gRPC and proxies say of a connection that broke under a call, besides UNAVAILABLE.
_BROKEN = ("rst_stream", "connection reset", "stream removed", "goaway", "socket closed")


class HandedOverError(ServerUnavailableError):
    """The server stopped, or found the reader too slow, and handed the text over."""


def is_lost(error: Any) -> bool:
    """Whether a call ended because its server, or the way to it, went away."""
    if isinstance(error, HandedOverError):
        return True
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return False  # its details may speak of a stream that was removed
    details = (error.details() or "").lower()
    return error.code() is grpc.StatusCode.UNAVAILABLE or any(words in details for words in _BROKEN)


def is_passing(error: Any, *, is_again: bool) -> bool:
    """Whether asking again may help; ``is_again``: what ended asked for what another server had lost."""
    # The next server may have no room yet for what the last one lost.
    return is_lost(error) or (is_again and error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED)


class Progress:
    """What of one text has come, over all the calls that asked for it. Makes no call and waits for nothing.

    Args:
        request: what is asked; asked again, it names the seed and the model that were told, or is a token's.
        timeout: seconds for all of it; ``None`` for no limit.
        resume_s: seconds without a new character after which a text that lost its server is given up.
        resumable: whether its reader knows what to do with a token.
    """

    def __init__(
        self, request: pb.GenerateRequest, timeout: float | None, resume_s: float, *, resumable: bool = False
    ) -> None:
        self.request, self._first, self._resume_s = request, request, resume_s
        self._is_resumable = resumable
        self._handed_over: Finished | None = None
        self._patience = Patience(timeout, resume_s)
        self._started: Started | None = None
        self._num_chars, self._num_symbols, self._hash = 0, 0, hashlib.blake2b()
        self._num_known, self._num_symbols_known, self._replayed = 0, 0, hashlib.blake2b()
        # What a server handed over, and the hash and the symbols of the text before it.
        self._token, self._token_hash, self._token_symbols = b"", hashlib.blake2b(), 0
        self._is_again = False

    @property
    def left_s(self) -> float | None:
        """Seconds that a call may still take."""
        return self._patience.left_s

    def take(self, response: pb.GenerateResponse) -> Event | None:
        """The event of a response, if it is new: Started, chunks without gap or overlap, Finished.

        Raises:
            ServerError: another server began another text.
            HandedOverError: the server handed the text over.
        """
        event = to_event(response)
        match event:
            case Started() if self._started is not None:
                return None
            case Started():
                self._started = event
            case Chunk():
                event = self._new_part(event)
            case Finished() if event.reason in _HANDED_OVER and event.resume_token and self._resume_s:
                self._keep(event)
                raise HandedOverError("the server handed the text over, and none took it")
            case Finished(reason="deadline") if event.num_chars < self._num_known:
                # Its reader has more of it than came again; the token is of an earlier place.
                event = replace(event, num_chars=self._num_chars, resume_token=None)
            case Finished() if event.num_chars < self._num_known:
                raise ServerError(OTHER_TEXT)
        if event is not None:
            self._patience.renew()
        return event

    def pause_after(self, error: Any) -> float | None:
        """Seconds to wait before the text is asked for again; ``None``: ``error`` is its end."""
        has_begun = self._started is not None or self._is_again
        return self._patience.pause() if has_begun and self._may_go_on(error) else None

    @property
    def end(self) -> Finished | None:
        """What the server that handed a text over said of it, for a reader who can use it."""
        return self._handed_over if self._is_resumable else None

    def begin_again(self) -> None:
        """From here on responses are those of another call."""
        self.request, self._is_again = self._again(), True
        self._num_known, self._replayed = self._num_chars, self._token_hash.copy()
        self._num_symbols_known = self._num_symbols - self._token_symbols

    def _again(self) -> pb.GenerateRequest:
        if self._started is None:  # nothing was told: any text will do
            return self._first
        model, output = self._started.model, self._first.output
        if self._token:
            request_id = self._first.request_id
            return pb.GenerateRequest(
                request_id=request_id, model=model, resume_token=self._token, output=output
            )
        self._first.model = model
        if self._started.version:
            self._first.version = self._started.version
        if not self._first.resume_token:  # which has the seed
            self._first.sampling.seed = self._started.seed
        return self._first

    def _keep(self, event: Finished) -> None:
        """The token of a text that is handed over, maybe before all that was read has come again."""
        is_behind = event.num_chars < self._num_known
        self._token = event.resume_token or b""
        self._token_hash = (self._replayed if is_behind else self._hash).copy()
        self._token_symbols = self._num_symbols - self._num_symbols_known
        if not is_behind:
            self._handed_over = event

    def _may_go_on(self, error: Any) -> bool:
        if is_passing(error, is_again=self._is_again):
            return True
        had_token = bool(self._token)
        if error.code() in _TOKEN_REFUSED:
            self._token, self._token_hash, self._token_symbols = b"", hashlib.blake2b(), 0
        return had_token and not self._token

    def _new_part(self, chunk: Chunk) -> Chunk | None:
        """What of a chunk was not read before; checks what was, once all of it has come again."""
        num_known = self._num_known
        known = chunk.text[: max(0, num_known - chunk.offset)]
        if known:
            self._replayed.update(known.encode())
        if chunk.offset < num_known <= chunk.offset + chunk.num_chars and (
            self._replayed.digest() != self._hash.digest()
        ):
            raise ServerError(OTHER_TEXT)
        # Counted, not computed: a character may be several bytes, and U+FFFD one to three.
        num_symbols = min(len(chunk.ids), self._num_symbols_known)
        self._num_symbols_known -= num_symbols
        text = chunk.text[len(known) :]
        if not text:
            return None
        ids, logprobs, top = chunk.ids[num_symbols:], chunk.logprobs[num_symbols:], chunk.top[num_symbols:]
        self._hash.update(text.encode())
        self._num_chars, self._handed_over = chunk.offset + chunk.num_chars, None
        self._num_symbols += len(ids)
        return Chunk(text, chunk.offset + len(known), len(text), ids, logprobs, top)


class Text:
    """The events of one text, for a thread that waits for them."""

    def __init__(self, channels: Channels[grpc.Channel], progress: Progress) -> None:
        self._channels, self._progress = channels, progress
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._channel, self._call = self._ask()

    def events(self) -> Iterator[Event]:
        """Started, chunks without gap or overlap, Finished.

        Raises:
            grpc.RpcError, HandedOverError: what ended the text, if it was not to be resumed.
            ServerError: another server began another text.
        """
        while True:
            try:
                for response in self._call:
                    if (event := self._progress.take(response)) is not None:
                        yield event
                return
            except (grpc.RpcError, HandedOverError) as error:
                pause = self._progress.pause_after(error)
                if pause is None or self._cancelled.wait(pause):
                    if (end := self._progress.end) is None:
                        raise
                    yield end
                    return
                try:
                    self._ask_again()
                except CharrnnError:  # the client is closed
                    raise error from None

    def cancel(self) -> None:
        """Stop the text, also while it is being asked for again."""
        with self._lock:
            self._cancelled.set()
            self._call.cancel()
            self._channels.release(self._channel)

    def _ask(self) -> tuple[grpc.Channel, Any]:
        channel = self._channels.lease()
        generate = channel.unary_stream(*method("Generate"))
        return channel, generate(self._progress.request, timeout=self._progress.left_s)

    def _ask_again(self) -> None:
        self._progress.begin_again()
        with self._lock:
            if not self._cancelled.is_set():
                self._channels.release(self._channel)
                self._channel, self._call = self._ask()

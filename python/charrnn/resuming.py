"""One text asked of a server, and asked for again when the server is lost while it comes.

A text depends only on the model, the prompt, the parameters and the seed. So another server, or the same one
started anew, gives the same text for the seed that the first one told; what was read already is left out.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc

from charrnn._pb import charrnn_pb2 as pb
from charrnn.channels import Channels
from charrnn.errors import CharrnnError, ServerError
from charrnn.stream import Chunk, Event, Finished, Started
from charrnn.wire import to_event

OTHER_TEXT = "the server was lost, and the one there now gives another text for the same seed: another model?"
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0
# What gRPC and proxies say of a connection that broke under a call, besides UNAVAILABLE.
_BROKEN = ("rst_stream", "connection reset", "stream removed", "goaway", "socket closed")


def is_lost(error: Any) -> bool:
    """Whether a call ended because its server, or the way to it, went away."""
    details = (error.details() or "").lower()
    return error.code() is grpc.StatusCode.UNAVAILABLE or any(words in details for words in _BROKEN)


class Text:
    """The events of one text.

    Args:
        timeout: seconds for all of it; ``None`` for no limit.
        resume_s: seconds without a new character after which a text that lost its server is given up.
    """

    def __init__(
        self, channels: Channels, request: pb.GenerateRequest, timeout: float | None, resume_s: float
    ) -> None:
        self._channels, self._request, self._resume_s = channels, request, resume_s
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._started: Started | None = None
        self._num_chars, self._hash = 0, hashlib.blake2b()
        self._channel, self._call = self._ask()

    def events(self) -> Iterator[Event]:
        """Started, chunks without gap or overlap, Finished.

        Raises:
            grpc.RpcError: what ended the text, if it was not to be resumed.
            ServerError: another server began another text.
        """
        give_up_at, pause = 0.0, 0.0
        while True:
            try:
                for event in self._events_of_call():
                    pause = 0.0
                    yield event
                return
            except grpc.RpcError as error:
                now = time.monotonic()
                give_up_at, pause = (give_up_at, pause) if pause else (now + self._resume_s, FIRST_PAUSE_S)
                if self._started is None or not is_lost(error) or now >= give_up_at:
                    raise
                # Clients that lost one server must not fall upon the next all at once.
                if self._cancelled.wait(pause * random.uniform(0.5, 1.0)):
                    raise
                pause = min(2 * pause, LONGEST_PAUSE_S)
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
        left = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        generate = channel.unary_stream(
            "/charrnn.v1.CharRnn/Generate",
            request_serializer=pb.GenerateRequest.SerializeToString,
            response_deserializer=pb.GenerateResponse.FromString,
        )
        return channel, generate(self._request, timeout=left)

    def _ask_again(self) -> None:
        assert self._started is not None
        self._request.sampling.seed = self._started.seed
        self._request.model = self._started.model
        with self._lock:
            if not self._cancelled.is_set():
                self._channels.release(self._channel)
                self._channel, self._call = self._ask()

    def _events_of_call(self) -> Iterator[Event]:
        """The events of one call that are new."""
        replayed = hashlib.blake2b()
        num_known = self._num_chars
        for response in self._call:
            event = to_event(response)
            match event:
                case None:
                    continue
                case Started() if self._started is not None:
                    continue
                case Started():
                    self._started = event
                case Chunk():
                    event = self._new_part(event, num_known, replayed)
                    if event is None:
                        continue
                case Finished() if event.num_chars < num_known:
                    raise ServerError(OTHER_TEXT)
            yield event

    def _new_part(self, chunk: Chunk, num_known: int, replayed: Any) -> Chunk | None:
        """What of a chunk was not read before; checks what was, once all of it has come again."""
        known = chunk.text[: max(0, num_known - chunk.offset)]
        if known:
            replayed.update(known.encode())
        if chunk.offset < num_known <= chunk.offset + chunk.num_chars and (
            replayed.digest() != self._hash.digest()
        ):
            raise ServerError(OTHER_TEXT)
        text = chunk.text[len(known) :]
        if not text:
            return None
        self._hash.update(text.encode())
        self._num_chars += len(text)
        return Chunk(text, chunk.offset + len(known), len(text))

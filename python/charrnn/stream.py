"""A text as it is being made: the same objects whether a server or this process makes it.

Knows neither the wire nor the engine: both hand it their events and a way to stop them.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

from charrnn.errors import CharrnnError

FinishReason = Literal["length", "stop", "match", "end", "deadline", "drained", "stalled"]


@dataclass(frozen=True, slots=True)
class Started:
    """The request was accepted."""

    model: str
    seed: int
    num_prompt_tokens: int
    version: str = ""
    """Of the model, where a server told it."""


Top = tuple[tuple[int, float], ...]
"""The most likely symbols in one place, the likeliest first: token ids with their log-probabilities."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of the text: ``num_chars`` whole characters, after ``offset`` characters of the text.

    If they were asked for, ``ids`` are the symbols of these characters and of no others; ``logprobs`` has for
    each the natural logarithm of its probability in the model's own distribution, ``top`` the most likely.
    """

    text: str
    offset: int
    num_chars: int
    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    top: tuple[Top, ...] = ()


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of one text went, in seconds from the moment it was accepted.

    ``num_steps`` counts the prompt's steps too; ``mean_batch`` is the mean number of streams over them.
    """

    queue_s: float
    first_char_s: float
    total_s: float
    num_steps: int
    mean_batch: float


@dataclass(frozen=True, slots=True)
class Finished:
    """Why and when a complete text ended.

    ``"length"`` is ``max_tokens``, ``"stop"`` a stop string, ``"match"`` the end of what ``regex`` allows,
    ``"end"`` the end symbol of a model of documents, which is no part of the text, ``"deadline"`` the call's,
    ``"drained"`` the end of the server, ``"stalled"`` a reader that took nothing for too long. With
    ``resume_token`` a text that could go on does so.
    """

    reason: FinishReason
    matched_stop: str | None
    num_chars: int
    timing: Timing
    resume_token: bytes | None = None


Event = Started | Chunk | Finished


class Stream(Iterator[Chunk]):
    """One text, chunk by chunk.

    Leaving the ``with`` block, ``close()`` and garbage collection all cancel what is not finished: a server
    stops working on it at once. Threads may read one stream together: each chunk goes to one of them.

    Raises:
        CharrnnError: from the first read on, whatever ended the text early; see ``charrnn.errors``.

    Example:
        >>> with engine.generate("ROMEO:", max_tokens=200) as stream:  # doctest: +SKIP
        ...     for chunk in stream:
        ...         print(chunk.text, end="", flush=True)
    """

    def __init__(self, events: Iterator[Event], cancel: Callable[[], None]) -> None:
        self._events = events
        self._started: Started | None = None
        self._finished: Finished | None = None
        self._lock, self._pid = threading.Lock(), os.getpid()
        self._cancel = weakref.finalize(self, _cancel_here, cancel, self._pid)

    @property
    def seed(self) -> int:
        """The seed in use, given or drawn; waits until the request is accepted."""
        return self._start().seed

    @property
    def model(self) -> str:
        """Name of the model; waits until the request is accepted."""
        return self._start().model

    @property
    def version(self) -> str:
        """Which model of that name, where a server told it; waits until the request is accepted."""
        return self._start().version

    @property
    def finished(self) -> Finished | None:
        """Why the text ended, once it is complete; ``None`` before, and for a text cut short."""
        return self._finished

    def read(self) -> str:
        """All that is left of the text."""
        return "".join(chunk.text for chunk in self)

    def close(self) -> None:
        """Stop the text where it is; does nothing when it has ended."""
        self._cancel()

    def _start(self) -> Started:
        if self._started is None and isinstance(event := self._pull(), Started):
            self._started = event
        if self._started is None:
            raise CharrnnError("the stream was closed before it started")
        return self._started

    def _pull(self) -> Event | None:
        """The next event; ``None`` once the stream has ended or was closed, also while waiting."""
        if not self._cancel.alive:
            return None
        if self._pid != os.getpid():
            raise CharrnnError("a stream does not survive a fork: start one in the child process")
        try:
            with self._lock:
                event = next(self._events, None)
        except BaseException:
            if not self._cancel.alive:
                return None
            self.close()
            raise
        return event

    def __next__(self) -> Chunk:
        while event := self._pull():
            match event:
                case Started():
                    self._started = event
                case Chunk():
                    return event
                case Finished():
                    self._finished = event
                    self.close()
        raise StopIteration

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _cancel_here(cancel: Callable[[], None], pid: int) -> None:
    """Leave the text of the parent alone in a fork."""
    if pid == os.getpid():
        cancel()

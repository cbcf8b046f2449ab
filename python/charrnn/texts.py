"""The texts of ``generate_many`` that have not ended: what is to be sent of them, what is new of what comes.

Makes no call and waits for nothing, so that threads and asyncio share it.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from typing import Any, TypeAlias

from charrnn._pb import charrnn_pb2 as pb
from charrnn.calls import Asked, RefusedError, one_of_many
from charrnn.errors import CharrnnError, ServerError
from charrnn.patience import Patience
from charrnn.resuming import HandedOverError, Progress, is_lost, is_passing
from charrnn.stream import Event, Finished
from charrnn.wire import to_event

Request: TypeAlias = tuple[str, Asked | None]
"""An id, and what to ask for; ``None`` cancels the text of that id."""
Answer: TypeAlias = tuple[str, Event | CharrnnError]
"""What happened to the text of an id."""


MAX_TEXTS = 1024
"""At once on one call: a server refuses more, so that they wait here."""


class Texts:
    """All texts of one ``generate_many``, over all the calls that ask for them; not safe for threads.

    Args:
        timeout: seconds for all of them; ``None`` for no limit.
        resume_s: seconds without anything new after which calls that are lost are given up, and each text
            that is handed over.
    """

    def __init__(self, timeout: float | None, resume_s: float) -> None:
        self._resume_s, self._patience = resume_s, Patience(timeout, resume_s)
        self._live: dict[str, Progress] = {}
        self._cancelled: set[str] = set()
        self._outbox: deque[pb.GenerateRequest] = deque()
        # When each text that waits is to be asked for again.
        self._due: list[tuple[float, str]] = []
        # Of the call under way: the texts that have begun on it, and those of which nothing more is read.
        self._running: set[str] = set()
        self._dropped: set[str] = set()
        self._has_begun = self._is_again = self._is_leaving = False
        self.have_all = False
        """Whether all requests are here."""

    @property
    def left_s(self) -> float | None:
        """Seconds that a call may still take."""
        return self._patience.left_s

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to ask for and nothing to come."""
        return self.have_all and self.is_idle

    @property
    def is_idle(self) -> bool:
        """Whether nothing that was asked for is still to come."""
        return not self._live and not self._outbox

    @property
    def has_unsent(self) -> bool:
        """Whether a request waits that was not sent yet."""
        return bool(self._outbox)

    @property
    def wait_s(self) -> float | None:
        """Seconds until a text is to be asked for again; ``None`` if no text waits."""
        return max(0.0, self._due[0][0] - time.monotonic()) if self._due else None

    def ask(self, name: str, asked: Asked | None) -> None:
        """A request of the caller's.

        Raises:
            RequestError: a value out of its limits.
        """
        request = one_of_many(name, asked, resumes=self._resume_s > 0)
        if asked is None:
            self._cancelled |= {name} & self._live.keys()
        elif name not in self._live:  # or the server refuses it
            resumable = asked.get("resumable", False)
            self._live[name] = Progress(request, None, self._resume_s, resumable=resumable)
        self._outbox.append(request)

    def next(self) -> pb.GenerateRequest | None:
        """What is to be sent now, if anything is; first what was lost."""
        if self._due and self._due[0][0] <= time.monotonic():
            return self._again(heapq.heappop(self._due)[1])
        return self._outbox.popleft() if self._outbox and not self._is_full else None

    def take(self, response: pb.GenerateResponse) -> Answer | None:
        """What a response tells, if it is new."""
        self._has_begun = True
        name, is_end = response.request_id, response.WhichOneof("event") in ("finished", "refused")
        if name in self._dropped:
            self._dropped -= {name} if is_end else set()
            return None
        try:
            event = self._event(name, response)
        except (HandedOverError, RefusedError) as error:
            return self._ended(name, error)
        except ServerError as error:  # another text, or an end that is unknown here
            return self._drop(name, error, is_end=is_end)
        if event is None:
            return None
        self._patience.renew()
        return name, event

    def check(self) -> None:
        """Leave the call if its server takes no texts and has none of these.

        Raises:
            HandedOverError: so it is.
        """
        if self._is_leaving and self._due and not self._running:
            raise HandedOverError("the server takes no more texts, and no other took those it had")

    def pause_after(self, error: Any) -> float | None:
        """Seconds to wait before the texts are asked for on another call; ``None``: ``error`` is the end."""
        if self.is_over or not self._has_begun or not is_passing(error, is_again=self._is_again):
            return None
        if self.is_idle:
            self._patience.extend()
        return self._patience.pause()

    def begin_again(self) -> None:
        """From here on requests and responses are those of another call."""
        self._is_again, self._is_leaving = True, False
        self._running.clear()
        self._dropped.clear()
        unsent = {id(request) for request in self._outbox}
        self._due = [(0.0, name) for name, text in self._live.items() if id(text.request) not in unsent]
        heapq.heapify(self._due)

    def ends(self) -> list[Answer]:
        """The texts that were handed over and that nobody took, for readers who can use that; they end."""
        ends = [(name, end) for name, progress in self._live.items() if (end := progress.end) is not None]
        for name, _ in ends:
            self._forget(name)
        return [*ends]

    @property
    def _is_full(self) -> bool:
        """Whether what is to be sent next has to wait for the end of a text."""
        return len(self._live) > MAX_TEXTS and not self._outbox[0].cancel

    def _again(self, name: str) -> pb.GenerateRequest:
        progress = self._live[name]
        progress.begin_again()
        if name in self._cancelled:  # so that the server says how it ended, as of any other
            self._outbox.appendleft(one_of_many(name, None))
        return progress.request

    def _event(self, name: str, response: pb.GenerateResponse) -> Event | CharrnnError | None:
        progress = self._live.get(name)
        match response.WhichOneof("event"):
            case "refused":
                error = RefusedError(response.refused)
                if progress is None or response.refused.reason == "REQUEST_ID_IN_USE":
                    return error.told()  # the text that has the id goes on
                raise error
            case "started" if progress is not None:
                self._running.add(name)
                self._is_leaving = False
        event = to_event(response) if progress is None else progress.take(response)
        if isinstance(event, Finished):
            self._forget(name)
        return event

    def _ended(self, name: str, error: HandedOverError | RefusedError) -> Answer | None:
        """Of a text that the server has ended: nothing if it is to be asked for again."""
        self._running.discard(name)
        progress = self._live[name]
        if (pause := progress.pause_after(error)) is not None:
            self._is_leaving |= is_lost(error)
            heapq.heappush(self._due, (time.monotonic() + pause, name))
            return None
        self._forget(name)
        return name, progress.end or (error.told() if isinstance(error, RefusedError) else error)

    def _drop(self, name: str, error: ServerError, *, is_end: bool) -> Answer:
        """Read no more of a text, which the server may still be making."""
        self._forget(name)
        if not is_end:
            self._dropped.add(name)
            self._outbox.appendleft(one_of_many(name, None))
        return name, error

    def _forget(self, name: str) -> None:
        self._live.pop(name, None)
        self._cancelled.discard(name)
        self._running.discard(name)

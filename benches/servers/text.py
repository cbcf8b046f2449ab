"""The text of one stream, from tokens drawn to responses sent: stop strings, chunks, and how it ended.

Knows nothing of steps or of how tokens are drawn.
"""

from __future__ import annotations

import time

from model import Model
from request import Request

from charrnn._pb import charrnn_pb2 as pb


class Text:
    """Takes tokens in, gives responses out."""

    def __init__(self, model: Model, request: Request) -> None:
        self._model, self._request = model, request
        self._chars, self._max = model.chars, request.params.max_tokens
        self._stop = sorted(request.params.stop, key=len, reverse=True)
        self._pending, self._offset, self._num_drawn = "", 0, 0
        self._matched: str | None = None
        self._accepted = self._began = self._waiting_since = time.monotonic()
        self._first_char = 0.0
        self.reason: pb.FinishReason | None = None

    def begin(self) -> None:
        """The first step is about to be run."""
        self._began = time.monotonic()

    def started(self) -> pb.GenerateResponse:
        """The first response."""
        request = self._request
        name, num_chars = self._model.bundle.name, request.num_prompt_chars
        return pb.GenerateResponse(
            request_id=request.id, started=pb.Started(model=name, seed=request.seed, prompt_chars=num_chars)
        )

    def add(self, token: int) -> None:
        """Takes a drawn token in; ``reason`` tells whether the text has ended with it."""
        if token == self._model.end_token:
            self.reason = pb.FINISH_REASON_END
            return
        if not self._pending:
            self._waiting_since = time.monotonic()
        self._pending += self._chars[token]
        self._num_drawn += 1
        if self._stop and (matched := next(filter(self._pending.endswith, self._stop), None)):
            self._matched, self.reason = matched, pb.FINISH_REASON_STOP
            if not self._request.params.include_stop:
                self._pending = self._pending.removesuffix(matched)
        elif self._num_drawn == self._max:
            self.reason = pb.FINISH_REASON_LENGTH

    def take(self) -> pb.GenerateResponse | None:
        """A chunk if one is due: the first character, enough of them, waited for long enough, or the last."""
        num_ready = len(self._pending) if self.reason or not self._stop else self._num_settled()
        if not num_ready or not (self.reason or self._is_due(num_ready)):
            return None
        if self._offset == 0:
            self._first_char = time.monotonic()
        text, self._pending = self._pending[:num_ready], self._pending[num_ready:]
        chunk = pb.Chunk(text=text, n=num_ready, offset=self._offset)
        self._offset += num_ready
        return pb.GenerateResponse(request_id=self._request.id, chunk=chunk)

    def _is_due(self, num_ready: int) -> bool:
        if self._offset == 0 or num_ready >= self._request.chunk_chars:
            return True
        delay = self._request.max_chunk_delay_s
        return delay is not None and time.monotonic() - self._waiting_since >= delay

    def _num_settled(self) -> int:
        """Characters that can no longer be part of a stop string."""
        pending = self._pending
        for start in range(max(0, len(pending) - len(self._stop[0]) + 1), len(pending)):
            if any(stop.startswith(pending[start:]) for stop in self._stop):
                return start
        return len(pending)

    def finished(self, mean_batch: float) -> pb.GenerateResponse:
        """The last response."""

        def since(then: float) -> int:
            return max(0, round(1e6 * (then - self._accepted)))

        timing = pb.Timing(
            queue_us=since(self._began),
            first_char_us=since(self._first_char),
            total_us=since(time.monotonic()),
            steps=self.num_steps,
            mean_batch=mean_batch,
        )
        finished = pb.Finished(
            reason=self.reason, matched_stop=self._matched, chars=self._offset, timing=timing
        )
        return pb.GenerateResponse(request_id=self._request.id, finished=finished)

    @property
    def num_steps(self) -> int:
        """Steps that a whole text takes: the last character drawn is not fed."""
        is_end = self.reason == pb.FINISH_REASON_END
        return len(self._request.prompt_tokens) + self._num_drawn - (not is_end)

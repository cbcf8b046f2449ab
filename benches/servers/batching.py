"""A server with a batching loop in Python: one step for all streams, then one draw for all of them.

``python benches/servers/batching.py BUNDLE``. The step runs in a thread, so that the event loop can send
meanwhile: in the loop itself it gave a lone stream a third more characters, and 64 streams half of them.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from model import Floats, Model, State, Tokens
from request import Request
from service import Responses, checked, parser, serve
from text import Text

from charrnn._pb import charrnn_pb2 as pb
from charrnn.errors import ServerBusyError


def draw(logits: Floats, temperature: Floats, top_k: Tokens, uniform: npt.NDArray[np.float64]) -> Tokens:
    """A token for each row of logits (B, V): the inverse CDF of its softmax at ``uniform`` (B,)."""
    greedy = logits.argmax(axis=1)
    if not temperature.any():
        return greedy
    scaled = logits / np.where(temperature == 0, 1, temperature)[:, None]
    if top_k.any():
        scaled = _best(scaled, top_k)
    mass = np.exp(scaled - scaled.max(axis=1, keepdims=True)).cumsum(axis=1, dtype=np.float64)  # (B, V)
    drawn = (mass <= uniform[:, None] * mass[:, -1:]).sum(axis=1)
    return np.where(temperature == 0, greedy, drawn)


def _best(scaled: Floats, top_k: Tokens) -> Floats:
    """Minus infinity for all but the ``top_k`` (B,) largest of each row; 0 keeps all."""
    vocab_size = scaled.shape[1]
    rank = vocab_size - np.where(top_k == 0, vocab_size, np.minimum(top_k, vocab_size))
    least = np.take_along_axis(np.sort(scaled, axis=1), rank[:, None], axis=1)
    return np.where(scaled < least, -np.inf, scaled)


class Stream:
    """A request in the batch, or waiting for room there."""

    def __init__(self, request: Request, text: Text) -> None:
        self.request, self.text = request, text
        self.queue: asyncio.Queue[pb.GenerateResponse | None] = asyncio.Queue()
        self.next_token, *prompt = request.prompt_tokens
        self._prompt, self._random = deque(prompt), request.rng().random
        self.is_left = False
        self.rows_before = 0

    def uniform(self) -> float:
        """What the next token is drawn with; none is drawn before the prompt has been read."""
        return 0.0 if self._prompt else self._random()

    def feed(self, drawn: int) -> None:
        """Goes on with the prompt while there is some, then with what was drawn."""
        if self._prompt:
            self.next_token = self._prompt.popleft()
            return
        self.next_token = drawn
        self.text.add(drawn)
        if chunk := self.text.take():
            self.queue.put_nowait(chunk)

    def finish(self, rows: int) -> None:
        """Says how it ended; ``rows`` were stepped since it joined."""
        self.queue.put_nowait(self.text.finished(rows / self.text.num_steps))
        self.queue.put_nowait(None)


class Batch:
    """Streams that take every step together, at most ``max_streams`` of them; others wait their turn."""

    def __init__(self, model: Model, max_streams: int, max_queue: int) -> None:
        self._model, self._max_streams, self._max_queue = model, max_streams, max_queue
        self._waiting: deque[Stream] = deque()
        self._running: list[Stream] = []
        self._state: State = model.zero_state(0)
        self._temperature, self._top_k = np.zeros(0, np.float32), np.zeros(0, np.int64)
        self._changed = asyncio.Event()
        self._num_rows = 0

    async def decode(self, request: Request, text: Text) -> Responses:
        """Joins, hands on what the loop makes, and leaves."""
        if len(self._waiting) >= self._max_queue:
            raise ServerBusyError(f"{self._max_queue} texts wait already; try again later")
        stream = Stream(request, text)
        self._waiting.append(stream)
        self._changed.set()
        try:
            while response := await stream.queue.get():
                yield response
        finally:
            self._leave(stream)

    async def run(self) -> None:
        """Step, draw and send, for as long as the server lives."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as pool:
            while True:
                if not self._running:
                    await self._changed.wait()
                if self._changed.is_set():
                    self._regroup()
                if self._running:
                    tokens = np.array([stream.next_token for stream in self._running])
                    logits = await loop.run_in_executor(pool, self._step, tokens)
                    self._send(logits)

    def _regroup(self) -> None:
        """Leaves out who has gone, admits who waits."""
        self._changed.clear()
        staying = [row for row, stream in enumerate(self._running) if not stream.is_left]
        self._waiting = deque(stream for stream in self._waiting if not stream.is_left)
        room = self._max_streams - len(staying)
        joining = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
        for stream in joining:
            stream.text.begin()
            stream.rows_before = self._num_rows
        self._running = [*(self._running[row] for row in staying), *joining]
        zeros = self._model.zero_state(len(joining))
        pairs = zip(self._state, zeros, strict=True)
        self._state = [np.concatenate([old[staying], new]) for old, new in pairs]
        params = [stream.request.params for stream in self._running]
        self._temperature = np.array([each.temperature for each in params], np.float32)
        self._top_k = np.array([each.top_k for each in params], np.int64)

    def _step(self, tokens: Tokens) -> Floats:
        logits, self._state = self._model.step(tokens, self._state)
        self._num_rows += len(tokens)
        return logits

    def _send(self, logits: Floats) -> None:
        uniform = np.array([stream.uniform() for stream in self._running])
        drawn = draw(logits, self._temperature, self._top_k, uniform).tolist()
        for stream, token in zip(self._running, drawn, strict=True):
            stream.feed(token)
            if stream.text.reason:
                stream.finish(self._num_rows - stream.rows_before)
                self._leave(stream)

    def _leave(self, stream: Stream) -> None:
        if not stream.is_left:
            stream.is_left = True
            self._changed.set()


async def run(options: argparse.Namespace) -> None:
    """Serve and step, until SIGTERM."""
    model = Model(options.bundle, threads=options.threads, precision=options.precision)
    batch = Batch(model, options.max_streams, options.queue)
    async with asyncio.TaskGroup() as tasks:  # a step that fails ends the server
        stepping = tasks.create_task(batch.run())
        await serve(checked(model, batch.decode), options.listen, [model.to_pb()])
        stepping.cancel()


def main() -> None:
    """Read the options and run."""
    options = parser(__doc__)
    options.add_argument("--threads", type=int, default=1, help="threads of ONNX Runtime")
    options.add_argument("--max-streams", type=int, default=128, help="texts decoded at once")
    options.add_argument("--queue", type=int, default=1024, help="texts that may wait")
    asyncio.run(run(options.parse_args()))


if __name__ == "__main__":
    main()

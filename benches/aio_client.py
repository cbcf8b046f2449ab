"""A load generator on grpc.aio that shares nothing with ``charrnn bench`` but the contract.

Latency counts from when a request was due. It takes a fraction of a millisecond a message for itself, so it
is for low rates. Knows one connection and one kind of request, and nothing of other generators.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from charrnn._pb import charrnn_pb2 as pb

QUANTILES = {"p50": 50, "p90": 90, "p99": 99}
# An event loop's timers are late by up to a millisecond: the rest of a wait is spent looking at the clock.
TIMER_S = 0.002
CONNECT_S = 10.0

Figures = dict[str, float]


@dataclass(frozen=True)
class Load:
    """What is asked, and when: ``rate`` requests a second, or, unless it is 0, by ``streams`` in turn."""

    rate: int
    streams: int
    seconds: float
    warmup: float
    prompt: str
    max_tokens: int

    @property
    def num_requests(self) -> int:
        """Of an open loop, warm-up included."""
        return round(self.rate * (self.warmup + self.seconds))


@dataclass
class Heard:
    """What the requests due after the warm-up showed; characters count by when they came."""

    begin: float
    end: float
    first_char_s: list[float] = field(default_factory=list)
    request_s: list[float] = field(default_factory=list)
    num_chars: int = 0

    def chunk(self, now: float, num_chars: int) -> None:
        """Characters have come."""
        if self.begin <= now < self.end:
            self.num_chars += num_chars

    def text(self, due: float, first: float, now: float) -> None:
        """A text has come to its end."""
        if self.begin <= due < self.end:
            self.first_char_s.append(first - due)
            self.request_s.append(now - due)

    def figures(self) -> Figures:
        """Under the names of ``charrnn bench``."""
        if not self.request_s:
            raise SystemExit("no request came due and ended; measure for longer")
        found = {"chars_per_s": self.num_chars / (self.end - self.begin)}
        for name, times in (("first_char_ms", self.first_char_s), ("request_ms", self.request_s)):
            found |= {f"{name}.{q}": 1e3 * float(np.percentile(times, p)) for q, p in QUANTILES.items()}
            found[f"{name}.mean"] = 1e3 * float(np.mean(times))
        return found


class Caller:
    """Sends requests over one connection and notes what comes."""

    def __init__(self, channel: Any, load: Load) -> None:
        self._load = load
        self._generate = channel.unary_stream(
            "/charrnn.v1.CharRnn/Generate",
            request_serializer=pb.GenerateRequest.SerializeToString,
            response_deserializer=pb.GenerateResponse.FromString,
        )
        self.began = time.perf_counter()
        self.heard = Heard(self.began + load.warmup, self.began + load.warmup + load.seconds)

    async def request(self, seed: int, due: float) -> None:
        """One text, with latency from when it was due."""
        request = pb.GenerateRequest(prompt=self._load.prompt)
        request.sampling.seed, request.stopping.max_tokens = seed, self._load.max_tokens
        first = 0.0
        async for response in self._generate(request):
            now = time.perf_counter()
            if response.HasField("chunk"):
                first = first or now
                self.heard.chunk(now, response.chunk.n)
        self.heard.text(due, first, time.perf_counter())

    async def open_loop(self) -> None:
        """Constant arrivals, whatever the server does."""
        async with asyncio.TaskGroup() as tasks:
            for index in range(self._load.num_requests):
                due = self.began + index / self._load.rate
                await asyncio.sleep(due - time.perf_counter() - TIMER_S)
                while time.perf_counter() < due:
                    await asyncio.sleep(0)
                tasks.create_task(self.request(index, due))

    async def closed_loop(self) -> None:
        """Each stream asks again when its text has ended."""

        async def stream(number: int) -> None:
            seed = number
            while (now := time.perf_counter()) < self.heard.end:
                await self.request(seed, now)
                seed += self._load.streams

        async with asyncio.TaskGroup() as tasks:
            for number in range(self._load.streams):
                tasks.create_task(stream(number))


def grpc_aio(address: str, load: Load) -> Figures:
    """The figures of one run."""

    async def run() -> Figures:
        async with grpc.aio.insecure_channel(address) as channel:
            await asyncio.wait_for(channel.channel_ready(), CONNECT_S)
            caller = Caller(channel, load)
            await (caller.closed_loop() if load.streams else caller.open_loop())
        return caller.heard.figures()

    try:
        return asyncio.run(run())
    except TimeoutError:
        raise SystemExit(f"no server answers at {address}") from None
    except ExceptionGroup as errors:  # of the task group; except* wraps what it raises before Python 3.11.4
        failed = [error for error in errors.exceptions if isinstance(error, grpc.aio.AioRpcError)]
        if not failed:
            raise
        raise SystemExit(f"a request failed: {failed[0].details()}") from None

"""What each layer of a server costs: steps of the model, draws, the engine, and clients over gRPC.

Every round measures each layer once, one after the other, so that a machine's moods hit all alike. A rate
says little of another machine; the ratio of a layer to the one before does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from charrnn import _native
from charrnn.bench.load import run_load
from charrnn.bench.plan import LoadPlan
from charrnn.engine import find_onnxruntime
from charrnn.errors import CharrnnError, ServerError
from charrnn.sampler import refusing_overflow

WARMUP_S = 1.0
MAX_BATCH = 64
"""Places of a worker, unless told otherwise."""
MAX_TOKENS = 4096
"""Long enough that starting a text costs nothing beside it."""


@dataclass(frozen=True)
class Layer:
    """Medians over the rounds."""

    name: str
    chars_per_s: float
    ratio: float | None
    """To the layer before, of each round; ``None`` for the first."""
    cpu_us_per_char: float | None


Measure = Callable[[float], tuple[float, float | None]]
"""Seconds -> characters a second, and processor microseconds a character where the system says them."""


def measure_layers(measures: dict[str, Measure], *, seconds: float, rounds: int) -> list[Layer]:
    """Each layer beside the one before it.

    Raises:
        CharrnnError: a layer that made nothing in ``seconds``.
    """
    found: dict[str, list[tuple[float, float | None]]] = {name: [] for name in measures}
    for measure in measures.values():
        measure(min(seconds, WARMUP_S))
    for _ in range(rounds):
        for name, measure in measures.items():
            measured = measure(seconds)
            if measured[0] == 0.0:
                raise CharrnnError(f"{name}: no character came in {seconds:g} s; give it more --seconds")
            found[name].append(measured)
    return list(_summarise(found))


def _summarise(found: dict[str, list[tuple[float, float | None]]]) -> Iterator[Layer]:
    before: list[float] | None = None
    for name, measured in found.items():
        rates, costs = [rate for rate, _ in measured], [cost for _, cost in measured if cost is not None]
        ratio = (
            None if before is None else statistics.median(a / b for a, b in zip(rates, before, strict=True))
        )
        yield Layer(name, statistics.median(rates), ratio, statistics.median(costs) if costs else None)
        before = rates


def num_workers(asked: int | None) -> int:
    """Decode threads that a server on this machine has, if so many are ``asked`` for."""
    return _native.num_workers(asked)


def engine_layers(
    bundle: str | os.PathLike[str], *, streams: int, workers: int | None, precision: str | None
) -> dict[str, Measure]:
    """The layers of this process: ``step``, ``sample``, ``engine``.

    The bare loops step as many rows as the engine would for so many streams, at most 64 in each worker.

    Raises:
        BundleError: a bundle that cannot be opened.
    """
    workers = num_workers(workers)
    loops = min(workers, streams)
    with refusing_overflow():
        layers = _native.Layers(
            bundle=bundle,
            onnxruntime=find_onnxruntime(),
            precision=precision,
            workers=workers,
            loops=loops,
            batch=min(-(-streams // loops), MAX_BATCH),
            queue=streams,
        )
    return {
        "step": lambda seconds: _rate(layers.step(seconds)),
        "sample": lambda seconds: _rate(layers.sample(seconds)),
        "engine": lambda seconds: _rate(layers.engine(streams, seconds)),
    }


def _rate(measured: tuple[int, float, float | None]) -> tuple[float, float | None]:
    chars, seconds, cpu_s = measured
    return chars / seconds, None if cpu_s is None else cpu_s * 1e6 / max(chars, 1)


def client_layers(address: str, *, streams: int) -> dict[str, Measure]:
    """The layers over gRPC: a client in Rust and one in Python, with as many streams."""

    def rust(seconds: float) -> tuple[float, float | None]:
        report = run_load(_endless(address, streams, seconds))
        failed = {name: n for name, n in report["outcomes"].items() if name not in ("ok", "unfinished")}
        if failed:
            raise ServerError(f"requests failed under load: {failed}: {report['messages'][:1]}")
        return report["chars_per_s"], None

    return {
        "grpc rust client": rust,
        "grpc python client": lambda seconds: (_python(address, streams, seconds), None),
    }


def _endless(address: str, streams: int, seconds: float) -> LoadPlan:
    lengths = {"uniform": [MAX_TOKENS, MAX_TOKENS]}
    return LoadPlan(
        address=address,
        streams=streams,
        duration_s=seconds,
        warmup_s=WARMUP_S,
        drain_s=0.0,
        max_tokens=lengths,
    )


def _python(address: str, streams: int, seconds: float) -> float:
    """Characters a second of a process of its own, as a user's would be."""
    command = [sys.executable, "-m", "charrnn.bench.reader", address, str(streams), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServerError(f"the Python client failed: {done.stderr.strip().splitlines()[-1:]}")
    return float(done.stdout)


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    address: str
    pid: int


@contextlib.contextmanager
def serving(bundle: str | os.PathLike[str], arguments: Sequence[str] = ()) -> Iterator[Server]:
    """``charrnn serve BUNDLE`` in a process of its own.

    Raises:
        ServerError: it does not start.
    """
    command = [sys.executable, "-m", "charrnn", "serve", os.fspath(bundle), "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        [*command, "--drain-timeout", "0", *arguments], stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        try:
            said = ""
            for line in server.stderr:
                said = line.strip()
                if said.startswith("serving on "):
                    threading.Thread(target=server.stderr.read, daemon=True).start()
                    yield Server(said.removeprefix("serving on ").partition(";")[0], server.pid)
                    return
            raise ServerError(f"charrnn serve did not start: {said}")
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=30)

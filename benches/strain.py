"""The server under strain: ``python benches/strain.py BUNDLE``.

    start      from the command to a text's first character, and processor time while nobody asks
    many       characters a second with thousands of streams beside 256, memory of each, waits between chunks
    neighbour  waits between chunks of 15 texts beside a reader of the longest prompts there may be
    overload   texts within the SLO at ten times the rate that can be done, and how soon the rest is refused

The load and its client share the cores with the server; under overload they have others, too. Ratios are
medians over rounds in which both sides of it take turns. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from charrnn.bench.layers import Server, serving
from charrnn.bench.load import run_load
from charrnn.bench.plan import LoadPlan
from charrnn.client import Client

PROMPT_CHARS = 65_536
NEIGHBOURS = 15
OVERLOAD = 10
KIB = 1024

Figures = dict[str, Any]


def processor_s(pid: int) -> float:
    """Seconds of processor time that a process took so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def rss_bytes(pid: int) -> int:
    """Memory of a process that is in RAM."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def start(bundle: Path, seconds: float) -> Figures:
    """One server from nothing, then idle for ``seconds``."""
    began = time.monotonic()
    with serving(bundle) as server, Client(server.address) as client:
        first = next(iter(client.generate("", max_tokens=1, seed=1)))
        first_s = time.monotonic() - began
        assert first.text
        before = processor_s(server.pid)
        time.sleep(seconds)
        return {"first_char_s": first_s, "idle_cores": (processor_s(server.pid) - before) / seconds}


def many(bundle: Path, seconds: float, rounds: int, streams: tuple[int, ...] = (256, 1024, 4096)) -> Figures:
    """The first number of streams is what the others stand beside."""
    reports: dict[int, list[Mapping[str, Any]]] = {count: [] for count in streams}
    with serving(bundle, ["--queue", str(2 * max(streams))]) as server:
        load(server, seconds, streams=streams[0])  # nothing is measured of the first
        idle = rss_bytes(server.pid)
        for _ in range(rounds):
            for count, found in reports.items():
                found.append(load(server, seconds, streams=count))
    base = [report["chars_per_s"] for report in reports[streams[0]]]
    return {str(count): of_many(found, base, idle, count) for count, found in reports.items()}


def of_many(found: list[Mapping[str, Any]], base: list[float], idle: int, count: int) -> Figures:
    """What so many streams gave, beside the first number of them and an idle server."""
    rates = [report["chars_per_s"] for report in found]
    rss = max(tick["server_rss_bytes"] for report in found for tick in report["ticks"])
    return {
        "chars_per_s": statistics.median(rates),
        "of_first": statistics.median(rate / other for rate, other in zip(rates, base, strict=True)),
        "inter_chunk_p99_ms": median_of(found, "inter_chunk_ms", "p99"),
        "kib_a_stream": (rss - idle) / count / KIB,
    }


def neighbour(bundle: Path, seconds: float, rounds: int) -> Figures:
    """Texts that run while prompts are read, in turns with texts that have the server to themselves."""
    alone, beside = [], []
    with serving(bundle) as server:
        load(server, seconds, streams=NEIGHBOURS)
        for _ in range(rounds):
            alone.append(load(server, seconds, streams=NEIGHBOURS))
            with reading_prompts(server):
                beside.append(load(server, seconds, streams=NEIGHBOURS))
    waits = [[report["inter_chunk_ms"]["p99"] for report in reports] for reports in (alone, beside)]
    return {
        "alone_p99_ms": statistics.median(waits[0]),
        "beside_p99_ms": statistics.median(waits[1]),
        "times": statistics.median(after / before for before, after in zip(*waits, strict=True)),
    }


@contextlib.contextmanager
def reading_prompts(server: Server) -> Iterator[None]:
    """A client that asks one character after as long a prompt as may be, again and again."""
    is_over = threading.Event()

    def ask() -> None:
        with Client(server.address) as client:
            symbol = client.models()[0].vocab.decode([0])
            while not is_over.is_set():
                for _ in client.generate(symbol * PROMPT_CHARS, max_tokens=1, seed=0):
                    pass

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def overload(bundle: Path, seconds: float, rounds: int, max_tokens: int = 256) -> Figures:
    """On the same cores as its client, and, where there are two, on others: what a client uses of the
    server's cores the server cannot.
    """
    cores = sorted(os.sched_getaffinity(0))
    half = -(-len(cores) // 2)
    places = {"": (cores, cores), "apart_": (cores[:half], cores[half:])}
    found: Figures = {}
    for place, (servers, clients) in places.items():
        with contextlib.ExitStack() as stack:
            with on(servers):
                server = stack.enter_context(serving(bundle, ["--queue", "64"]))
            if clients:
                stack.enter_context(on(clients))
                ways = overload_of(
                    partial(load, server, seconds, max_tokens=max_tokens, drain_s=30.0), rounds
                )
                found |= {f"{place}{way}": figures for way, figures in ways.items()}
    return found


def overload_of(load_to_the_end: Callable[..., Mapping[str, Any]], rounds: int) -> Figures:
    """What 64 streams in a closed loop get is what can be done; their slowest sets the SLO, times ten.

    Once with a call for each text, and once on calls that they share.
    """
    slo = {"request_ms": 10 * load_to_the_end(streams=64)["request_ms"]["p99"]}
    ways = {"calls": False, "shared_calls": True}
    return {
        name: {
            "slo_ms": slo["request_ms"],
            **under(partial(load_to_the_end, slo=slo, multiplex=way), rounds),
        }
        for name, way in ways.items()
    }


@contextlib.contextmanager
def on(cores: Sequence[int]) -> Iterator[None]:
    """This thread, and what it starts."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def under(load_to_the_end: Callable[..., Mapping[str, Any]], rounds: int) -> Figures:
    """Ten times the peak beside the peak. The client's processor time is taken from the server's machine."""
    peaks, shares, client_cores, refusals = [], [], [], list[float]()
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            peak = load_to_the_end(streams=64)["goodput"]
            rows, before = f"{folder}/rows.csv", os.times()
            heavy = load_to_the_end(rate=OVERLOAD * peak, csv=rows)
            client_cores.append(cores_since(before))
            peaks.append(peak)
            shares.append(heavy["goodput"] / peak)
            refusals += refused_ms(Path(rows))
    refusals.sort()
    return {
        "peak_texts_per_s": statistics.median(peaks),
        "of_peak": statistics.median(shares),
        "client_cores": statistics.median(client_cores),
        "refused": len(refusals),
        **{f"refused_p{p}_ms": refusals[len(refusals) * p // 100] for p in (50, 90, 99)},
    }


def cores_since(before: os.times_result) -> float:
    """Of this process, on average."""
    now = os.times()
    return (now.user + now.system - before.user - before.system) / (now.elapsed - before.elapsed)


def refused_ms(rows: Path) -> list[float]:
    """Milliseconds from when a refused request was sent to its answer."""
    with rows.open() as lines:
        return [
            float(row["request_ms"]) - float(row["lag_ms"])
            for row in csv.DictReader(lines)
            if row["outcome"] == "RESOURCE_EXHAUSTED"
        ]


def load(
    server: Server, seconds: float, *, max_tokens: int = 4096, drain_s: float = 0.0, **how: Any
) -> Mapping[str, Any]:
    """A report of ``charrnn bench``; only refusals may fail."""
    lengths = {"uniform": [max_tokens, max_tokens]}
    plan = LoadPlan(
        address=server.address,
        duration_s=seconds,
        warmup_s=1.0,
        drain_s=drain_s,
        max_tokens=lengths,
        **how,
    )
    report = run_load(plan)
    strange = set(report["outcomes"]) - {"ok", "unfinished", "RESOURCE_EXHAUSTED", "dropped"}
    if strange:
        raise SystemExit(f"requests failed: {strange}: {report['messages'][:1]}")
    return report


def median_of(reports: list[Mapping[str, Any]], times: str, quantile: str) -> float:
    """Of the rounds."""
    return statistics.median(report[times][quantile] for report in reports)


def main() -> None:
    """Print each part as it is measured, then the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", default="start,many,neighbour,overload")
    given = parser.parse_args()
    bundle, seconds, rounds = given.bundle, given.seconds, given.rounds
    parts: dict[str, Callable[[], Figures]] = {
        "start": lambda: start(bundle, seconds),
        "many": lambda: many(bundle, seconds, rounds),
        "neighbour": lambda: neighbour(bundle, seconds, rounds),
        "overload": lambda: overload(bundle, seconds, rounds),
    }
    found = {}
    for name in given.parts.split(","):
        found[name] = parts[name]()
        for figure, value in found[name].items():
            print(f"{name:<10}{figure:<20}{told(value)}", flush=True)
    print(json.dumps({"bench": "strain", **found}))


def told(value: Any) -> str:
    """For people."""
    if isinstance(value, dict):
        return "  ".join(f"{name} {told(each)}" for name, each in value.items())
    return f"{value:,.3g}" if value < 100 else f"{value:,.0f}"


if __name__ == "__main__":
    main()

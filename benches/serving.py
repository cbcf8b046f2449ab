"""Ours beside servers that one writes in Python in a day: ``python benches/serving.py BUNDLE``.

Each round measures every server once at each number of streams, with ``charrnn bench``'s generator, on the
same model and cores. Ratios are medians of the rounds' own, since a machine drifts, with the least and the
greatest beside them. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from charrnn.bench.layers import serving
from charrnn.bench.load import run_load
from charrnn.bench.plan import LoadPlan

SERVERS = Path(__file__).parent / "servers"
OTHERS = {"naive": "naive.py", "batching": "batching.py"}
OURS = "charrnn serve"
CHUNK_CHARS = 16
"""Of all servers: a longer one would be an advantage of ours that a line changes in the others."""


@contextmanager
def yardstick(script: str, bundle: Path, precision: str) -> Iterator[str]:
    """The address of one of the others, in a process of its own."""
    command = [sys.executable, str(SERVERS / script), str(bundle), "--precision", precision]
    command += ["--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            line = server.stderr.readline()
            yield line.removeprefix("serving on ").partition(";")[0].strip()
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=30)


def measure(address: str, streams: int, seconds: float) -> float:
    """Characters a second."""
    lengths = {"uniform": [256, 256]}
    plan = LoadPlan(
        address=address,
        streams=streams,
        duration_s=seconds,
        warmup_s=1.0,
        drain_s=0.0,
        max_tokens=lengths,
        chunk_chars=CHUNK_CHARS,
    )
    report = run_load(plan)
    failed = {name: n for name, n in report["outcomes"].items() if name not in ("ok", "unfinished")}
    if failed:
        raise SystemExit(f"requests to {address} failed: {failed}: {report['messages'][:1]}")
    return float(report["chars_per_s"])


def row(name: str, rounds: dict[str, list[float]]) -> dict[str, float]:
    """What one server gave, and how many times as much ours gives."""
    times = [ours / rate for ours, rate in zip(rounds[OURS], rounds[name], strict=True)]
    return {
        "chars_per_s": statistics.median(rounds[name]),
        "ours_is_times": statistics.median(times),
        "least": min(times),
        "greatest": max(times),
    }


def line(each: dict[str, float]) -> str:
    """A row for people."""
    span = f"({each['least']:.1f} to {each['greatest']:.1f})"
    return (
        f"{each['chars_per_s']:>10,.0f} characters/s, ours {each['ours_is_times']:.1f} times as fast {span}"
    )


def main() -> None:
    """Take turns, print a line for each server and number of streams, then the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--streams", default="1,16,64")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--precision", default="int8", choices=["int8", "fp32"])
    given = parser.parse_args()
    found: dict[str, dict[str, dict[str, float]]] = {}
    with ExitStack() as stack:
        ours = stack.enter_context(serving(given.bundle, ["--precision", given.precision]))
        others = {
            name: stack.enter_context(yardstick(script, given.bundle, given.precision))
            for name, script in OTHERS.items()
        }
        addresses = {OURS: ours.address, **others}
        for streams in (int(word) for word in given.streams.split(",")):
            rounds: dict[str, list[float]] = {name: [] for name in addresses}
            for _ in range(given.rounds):
                for name, address in addresses.items():
                    rounds[name].append(measure(address, streams, given.seconds))
            found[str(streams)] = {name: row(name, rounds) for name in addresses}
            for name, each in found[str(streams)].items():
                print(f"{streams:>4} streams  {name:<14}{line(each)}", flush=True)
    print(json.dumps({"bench": "serving", "precision": given.precision, "streams": found}))


if __name__ == "__main__":
    main()

"""A server stopped for 500 ms in every 5 s, under an open and a closed load: ``python benches/stall.py``.

Both loads see the same stops and have the same mean rate: the closed one is measured first, and the open one
sends as many requests a second. Prints a table and one JSON line; ``--plot FILE.png`` draws both.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from charrnn.bench.layers import serving
from charrnn.bench.load import Report, run_load
from charrnn.bench.plan import LoadPlan
from charrnn.report.drawing import BLUE, ORANGE, new_figure, to_png
from charrnn.training import TrainConfig, Trainer

STOP_S, EVERY_S = 0.5, 5.0
QUANTILES = ("p50", "p90", "p99", "p999", "max")


def make_bundle(folder: Path) -> Path:
    """A model of two small layers; what its weights say does not matter here."""
    from charrnn.export import export

    text = folder / "text.txt"
    text.write_text("".join(chr(97 + i * i % 26) for i in range(20_000)))
    config = TrainConfig(hidden_size=64, num_layers=2, max_steps=5, device="cpu")
    Trainer(config).fit(text, out=folder / "run")
    export(folder / "run", folder / "bundle")
    return folder / "bundle"


@contextmanager
def stalling(pid: int) -> Iterator[None]:
    """Stops a process again and again, and lets it go on at the end."""
    ended = threading.Event()

    def stall() -> None:
        while not ended.wait(EVERY_S - STOP_S):
            os.kill(pid, signal.SIGSTOP)
            ended.wait(STOP_S)
            os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=stall)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def measure(bundle: Path, streams: int, seconds: float) -> dict[str, Report]:
    """A closed load, and an open one of its rate."""
    reports = {}
    for name in ("closed", "open"):
        with serving(bundle) as server, stalling(server.pid):
            rate = reports["closed"]["rate"] if name == "open" else None
            plan = LoadPlan(
                address=server.address,
                rate=rate,
                streams=None if rate else streams,
                arrivals="constant",
                duration_s=seconds,
                warmup_s=EVERY_S,
                max_tokens={"uniform": [16, 16]},
                max_chunk_delay_ms=0,
            )
            reports[name] = run_load(plan)
    return reports


def draw(reports: dict[str, Report], path: Path) -> None:
    """First characters of both, on a scale of nines."""
    drawing, axes = new_figure("share of requests", "first character, ms")
    for (name, report), color, style in zip(reports.items(), (ORANGE, BLUE), ("--", "-"), strict=True):
        shares, times = zip(*report["first_char_ms"]["cdf"], strict=True)
        least = 0.5 / report["first_char_ms"]["count"]
        label = f"{name}, {report['rate']:,.0f} requests/s"
        axes.plot([1 / max(1 - share, least) for share in shares], times, color=color, ls=style, label=label)
    axes.axhline(STOP_S * 1e3, color="#5A5A5A", lw=1, ls=":", label="length of a stop")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.minorticks_off()
    ticks = {1: "0", 2: "50 %", 10: "90 %", 100: "99 %", 1000: "99.9 %", 10_000: "99.99 %"}
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.legend(frameon=False)
    path.write_bytes(to_png(drawing))


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--streams", type=int, default=2, help="of the closed load")
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        reports = measure(make_bundle(Path(name)), given.streams, given.seconds)
    print("| load | requests/s | " + " | ".join(QUANTILES) + " |\n|---|---:|" + "---:|" * len(QUANTILES))
    made: dict[str, Any] = {"bench": "stall", "stop_s": STOP_S, "every_s": EVERY_S}
    for load, report in reports.items():
        first = {quantile: report["first_char_ms"][quantile] for quantile in QUANTILES}
        made[load] = {"rate": report["rate"], "first_char_ms": first}
        cells = " | ".join(f"{value:,.1f} ms" for value in first.values())
        print(f"| {load} | {report['rate']:,.0f} | {cells} |")
    if given.plot:
        draw(reports, given.plot)
    print(json.dumps(made))


if __name__ == "__main__":
    main()

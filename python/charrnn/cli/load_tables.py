"""Runs of load in tables: second by second while they run, and at their end."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from charrnn.bench.document import FIGURES, figure, load_name, notes, shown
from charrnn.bench.load import OnTick, Report
from charrnn.cli.tables import print_table

SHOWN_SECONDS = 12
SPLIT = {
    "queue_ms": "server: wait for a slot, ms",
    "mean_batch": "server: texts in a step",
    "step_ms": "server: a step, ms",
    "sample_ms": "server: its draws, ms",
    "send_ms": "server: handing over, ms",
}


@contextmanager
def live_table(address: str) -> Iterator[OnTick]:
    """The last seconds in a table on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda tick: None
        return
    seen: list[dict[str, Any]] = []
    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:

        def show(tick: dict[str, Any]) -> None:
            seen.append(tick)
            live.update(_live(seen[-SHOWN_SECONDS:], address), refresh=True)

        yield show


def _live(ticks: Sequence[dict[str, Any]], address: str) -> Table:
    table = Table(title=f"load on {address}", title_justify="left")
    heads = (
        "second",
        "under way",
        "sent",
        "ended",
        "errors",
        "characters/s",
        "first char p50",
        "p99, ms",
        "server cores",
    )
    for name in heads:
        table.add_column(name, justify="right")
    for tick in ticks:
        whole = [f"{tick[name]:,}" for name in ("active", "sent", "ended", "errors")]
        times = [
            "-" if tick[name] is None else f"{tick[name]:.1f}"
            for name in ("first_char_p50_ms", "first_char_p99_ms")
        ]
        cores = "-" if tick["server_cores"] is None else f"{tick['server_cores']:.2f}"
        rate = f"{tick['chars'] / max(tick['interval_s'], 1e-9):,.0f}"
        table.add_row(f"{tick['t_s']:.0f}", *whole, rate, *times, cores)
    return table


def print_runs(made: Mapping[str, Any]) -> None:
    """The figures of a document, a column a run."""
    reports = made["runs"]
    rows = [[name, *(shown(figure(report, path)) for report in reports)] for name, path in FIGURES.items()]
    for name in sorted({name for report in reports for name in report["outcomes"]}):
        rows.append([f"requests: {name}", *(f"{report['outcomes'].get(name, 0):,}" for report in reports)])
    shares = ["-" if r["good_share"] is None else f"{r['good_share']:.2%}" for r in reports]
    rows.append(["requests that met the SLO", *shares])
    for name, label in SPLIT.items():
        if any(report["split"] for report in reports):
            rows.append([label, *(shown((report["split"] or {}).get(name)) for report in reports)])
    rows.append(["server: cores", *(_mean_cores(report) for report in reports)])
    print_table(f"load on {reports[0]['plan']['address']}", ["", *map(load_name, reports)], rows)
    if made["knee"] is not None:
        click.echo(f"knee: {made['knee']:,g} requests/s is the highest rate tried at which the SLO held")
    for report in reports:
        # Of a run without any success the error line says it all.
        if report["outcomes"].get("ok") or report["interrupted"]:
            for note in notes(report):
                click.echo(f"note: {note}", err=True)


def _mean_cores(report: Report) -> str:
    """Over the seconds that count."""
    begin, end = report["plan"]["warmup_s"], report["plan"]["warmup_s"] + report["plan"]["duration_s"]
    ticks = [t for t in report["ticks"] if begin < t["t_s"] <= end + 0.1 and t["server_cores"] is not None]
    seconds = sum(tick["interval_s"] for tick in ticks)
    return f"{sum(t['server_cores'] * t['interval_s'] for t in ticks) / seconds:.2f}" if seconds else "-"

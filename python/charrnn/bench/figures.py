"""Plots of runs as PNG files in memory: latency by load, distributions, and the course of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from charrnn.bench.document import figure, load_name
from charrnn.bench.load import Report
from charrnn.report.drawing import BLUE, GREEN, GREY, ORANGE, PURPLE, new_figure, to_png

SHOWN_MS = 0.01
"""Chunks that came in one packet are nanoseconds apart."""
TIMES = {
    "first_char_ms": ("first character", BLUE, "-"),
    "inter_char_ms": ("between characters", GREEN, "--"),
    "inter_chunk_ms": ("between chunks", PURPLE, ":"),
    "request_ms": ("whole request", ORANGE, "-."),
}


def draw_figures(reports: Sequence[Report]) -> dict[str, bytes]:
    """PNG files by name: of several runs latency and throughput, of the last its times and course."""
    drawn: dict[str, Figure] = {}
    if len(reports) > 1:
        drawn |= {"latency": _latency(reports), "throughput": _throughput(reports)}
    drawn |= {"times": _times(reports[-1]), "course": _course(reports[-1])}
    return {name: to_png(drawing) for name, drawing in drawn.items()}


def _loads(reports: Sequence[Report]) -> tuple[list[float], str]:
    """Where the runs stand on the axis, and what it is."""
    loads = [report["plan"]["load"] for report in reports]
    if "closed" in loads[0]:
        return [load["closed"]["streams"] for load in loads], "streams at once"
    return [load["open"]["rate"] for load in loads], "requests a second"


def _latency(reports: Sequence[Report]) -> Figure:
    loads, label = _loads(reports)
    drawing, axes = new_figure(label, "first character, ms")
    for quantile, color, style in (("p50", BLUE, "-"), ("p99", ORANGE, "--"), ("p999", PURPLE, ":")):
        _draw(axes, loads, [figure(r, ("first_char_ms", quantile)) for r in reports], color, style, quantile)
    if limit := reports[0]["plan"]["slo"]["first_char_ms"]:
        axes.axhline(limit, color=GREY, lw=1, ls="-.", label=f"SLO {limit:g} ms")
    _mark_loads(axes, loads)
    axes.set_yscale("log")
    axes.legend(frameon=False)
    return drawing


def _throughput(reports: Sequence[Report]) -> Figure:
    loads, label = _loads(reports)
    drawing, axes = new_figure(label, "characters a second")
    _draw(axes, loads, [report["chars_per_s"] for report in reports], BLUE, "-", "characters a second")
    good = axes.twinx()
    _draw(good, loads, [report["goodput"] for report in reports], ORANGE, "--", "good requests a second")
    good.set_ylabel("good requests a second")
    _mark_loads(axes, loads)
    axes.set_ylim(bottom=0)
    good.set_ylim(bottom=0)
    drawing.legend(frameon=False, loc="outside upper right", ncols=2)
    return drawing


def _draw(
    axes: Axes, x: Sequence[float], y: Sequence[float | None], color: str, style: str, label: str
) -> None:
    points = sorted((a, b) for a, b in zip(x, y, strict=True) if b is not None)
    axes.plot(*zip(*points, strict=True), color=color, ls=style, marker="o", ms=4, lw=1.5, label=label)


def _mark_loads(axes: Axes, loads: Sequence[float]) -> None:
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(sorted(loads), [f"{load:,.3g}" for load in sorted(loads)], rotation=45)


def _times(report: Report) -> Figure:
    """Shares on a scale of nines, as HdrHistogram's own plots have it: the tail is what there is to see."""
    drawing, axes = new_figure("share of the times", f"ms, at {load_name(report)}")
    for name, (label, color, style) in TIMES.items():
        if report[name] is not None:
            shares, times = zip(*report[name]["cdf"], strict=True)
            least = 1 / report[name]["count"] / 2
            axes.plot(
                [1 / max(1 - s, least) for s in shares], times, color=color, ls=style, lw=1.5, label=label
            )
    ticks = {1: "0", 2: "50 %", 10: "90 %", 100: "99 %", 1000: "99.9 %", 10_000: "99.99 %"}
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(bottom=max(axes.get_ylim()[0], SHOWN_MS))
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()
    axes.legend(frameon=False)
    return drawing


def _course(report: Report) -> Figure:
    drawing, axes = new_figure("seconds", "characters a second")
    ticks: list[dict[str, Any]] = [tick for tick in report["ticks"] if tick["interval_s"] > 0.1]
    seconds = [tick["t_s"] for tick in ticks]
    axes.plot(
        seconds,
        [t["chars"] / t["interval_s"] for t in ticks],
        color=BLUE,
        lw=1.5,
        label="characters a second",
    )
    active = axes.twinx()
    active.plot(
        seconds, [t["active"] for t in ticks], color=ORANGE, ls="--", lw=1.2, label="requests under way"
    )
    active.set_ylabel("requests under way")
    axes.axvspan(0, report["plan"]["warmup_s"], color="#EEEEEE", label="warm-up")
    axes.set_ylim(bottom=0)
    active.set_ylim(bottom=0)
    drawing.legend(frameon=False, loc="outside upper right", ncols=3)
    return drawing

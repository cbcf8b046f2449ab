"""Plots of a report as PNG files in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, ScalarFormatter

from charrnn.report.drawing import BLUE, GREEN, GREY, ORANGE, PURPLE, new_figure, to_png
from charrnn.report.gather import Report
from charrnn.training.memorisation import Memorisation
from charrnn.training.ngram import NgramLosses

# Orders that are drawn into the curve besides the best.
SHOWN_ORDERS = (2, 3, 4, 5)


def draw_figures(report: Report) -> dict[str, bytes]:
    """PNG files by name, as far as there is something to draw: curve, ngram, position, memorisation."""
    drawn = {
        "curve": _curve(report) if report.train or report.validation else None,
        "ngram": _orders(report) if report.ngram else None,
        "position": _positions(report) if report.measures else None,
        "memorisation": _memorisation(report) if report.copied else None,
    }
    return {name: to_png(figure) for name, figure in drawn.items() if figure is not None}


def _curve(report: Report) -> Figure:
    figure, axes = new_figure("step", f"loss, nats per {report.unit}")
    if report.train:
        axes.plot(*_columns(report.train), color=BLUE, lw=1.2, label="train (mean of the last steps)")
    if report.validation:
        steps, nats = _columns(report.validation)
        axes.plot(steps, nats, color=ORANGE, lw=1.8, marker="o", ms=4, label="validation")
    losses = [nats for _, nats in [*report.train, *report.validation]]
    lowest = min(losses)
    if report.ngram:
        lowest = min(lowest, report.ngram.best_nats)
    # The first steps are far above all others.
    highest = max(_typical_top(losses), lowest + 0.5)
    if report.ngram:
        _draw_orders(axes, report.ngram, highest)
    margin = (highest - lowest) * 0.06
    axes.set_ylim(lowest - margin, highest + margin)
    axes.set_xlim(left=0)
    _add_bits(axes, report.unit)
    axes.legend(frameon=False, loc="upper right")
    return figure


def _draw_orders(axes: Axes, ngram: NgramLosses, highest: float) -> None:
    """A line for each order that is in sight and has room, named at its right end."""
    best, above = ngram.best_order, highest
    for order in sorted({*SHOWN_ORDERS, best}):
        nats = ngram.nats[order - 1]
        if nats > highest or (order != best and abs(above - nats) < 0.06):
            continue
        above = nats
        name = f"{order}-gram {nats:.3f}" + (" (best)" if order == best else "")
        axes.axhline(nats, color=GREEN if order == best else GREY, lw=1.2, ls="--" if order == best else ":")
        at = (0.995, nats)
        axes.annotate(
            name, at, xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8, color=GREY
        )


def _typical_top(losses: Sequence[float]) -> float:
    """The greatest loss but for the greatest twentieth, which is the start of training."""
    ordered = sorted(losses)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]


def _orders(report: Report) -> Figure:
    assert report.ngram is not None
    figure, axes = new_figure("order n", f"validation loss, nats per {report.unit}")
    nats = report.ngram.nats
    axes.plot(range(1, len(nats) + 1), nats, color=GREY, lw=1.5, marker="s", ms=5, label="n-gram")
    if report.measures is not None:
        lines = [("this model, state carried", report.measures.carried, ORANGE, "-")]
        if report.measures.cold:
            lines.append((f"cold windows of {report.measures.window}", report.measures.cold, BLUE, "--"))
        if report.measures.dynamic:
            lines.append(("dynamic evaluation", report.measures.dynamic, PURPLE, "-."))
        for name, loss, color, style in lines:
            axes.axhline(loss.nats, color=color, lw=1.5, ls=style, label=f"{name} {loss.nats:.3f}")
    axes.set_xticks(range(1, len(nats) + 1))
    _add_bits(axes, report.unit)
    axes.legend(frameon=False, loc="upper right")
    return figure


def _positions(report: Report) -> Figure:
    assert report.measures is not None
    figure, axes = new_figure(
        f"{report.unit}s since the zero state", f"validation loss, nats per {report.unit}"
    )
    buckets = report.measures.by_position
    middles = [math.sqrt(bucket.first * bucket.last) for bucket in buckets]
    spans = [[m - b.first for m, b in zip(middles, buckets, strict=True)]]
    spans.append([b.last - m for m, b in zip(middles, buckets, strict=True)])
    nats = [bucket.loss.nats for bucket in buckets]
    axes.errorbar(middles, nats, xerr=spans, color=BLUE, marker="o", ms=4, lw=1.5, label="mean of a range")
    carried = report.measures.carried.nats
    axes.axhline(carried, color=ORANGE, lw=1.5, ls="--", label=f"state carried {carried:.3f}")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    _add_bits(axes, report.unit)
    axes.legend(frameon=False, loc="upper right")
    return figure


def _memorisation(report: Report) -> Figure:
    assert report.copied is not None
    figure, axes = new_figure(f"length of a substring, {report.unit}s", "share not in the training text")
    _draw_novelty(axes, report.copied.drawn, ORANGE, "o", "drawn from the model")
    if report.copied.held_out is not None:
        _draw_novelty(axes, report.copied.held_out, BLUE, "s", "validation text, for comparison")
    axes.set_xscale("log", base=2)
    axes.set_xticks([2, 4, 8, 16, 32, 64])
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylim(-0.03, 1.03)
    axes.legend(frameon=False, loc="lower right")
    return figure


def _draw_novelty(axes: Axes, found: Memorisation, color: str, marker: str, name: str) -> None:
    label = f"{name}; longest copy {found.longest.length if found.longest else 0}"
    axes.plot(
        list(found.novel), list(found.novel.values()), color=color, marker=marker, ms=4, lw=1.5, label=label
    )


def _add_bits(axes: Axes, unit: str) -> None:
    """The same losses in bits, on the right."""
    axes.secondary_yaxis("right", functions=(_to_bits, _to_nats)).set_ylabel(f"bits per {unit}")


def _to_bits(nats: Any) -> Any:
    return np.asarray(nats) / math.log(2)


def _to_nats(bits: Any) -> Any:
    return np.asarray(bits) * math.log(2)


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [step for step, _ in points], [nats for _, nats in points]

"""The look of plots: one for all pages.

Colours are those of Okabe & Ito, told apart by all common kinds of sight; lines differ in their dashes or
marks too. Figures are objects of their own: no global state of matplotlib is touched.
"""

from __future__ import annotations

import io

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#5A5A5A"
_DPI = 160


def new_figure(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    """An empty plot."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(color="#DDDDDD", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines["top"].set_visible(False)
    return figure, axes


def to_png(figure: Figure) -> bytes:
    """The file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI)
    return file.getvalue()

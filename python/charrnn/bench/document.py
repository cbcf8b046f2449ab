"""The JSON document of one or more runs: made, read, and compared.

Its fields are in docs/bench.md. A field may be added; none changes its meaning within a ``format``.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charrnn.bench.load import Report
from charrnn.errors import DataError

FORMAT = "charrnn-bench/1"

FIGURES = {
    "characters/s": ("chars_per_s",),
    "requests/s": ("rate",),
    "goodput, requests/s": ("goodput",),
    "first character p50, ms": ("first_char_ms", "p50"),
    "first character p99, ms": ("first_char_ms", "p99"),
    "first character p99.9, ms": ("first_char_ms", "p999"),
    "between characters p50, ms": ("inter_char_ms", "p50"),
    "between characters p99, ms": ("inter_char_ms", "p99"),
    "between chunks p99, ms": ("inter_chunk_ms", "p99"),
    "request p50, ms": ("request_ms", "p50"),
    "request p99, ms": ("request_ms", "p99"),
}
"""The figures of a run that people compare, by name: where they stand in its report."""


def make_document(reports: Sequence[Report], knee: float | None = None) -> dict[str, Any]:
    """The document of ``reports``."""
    return {
        "format": FORMAT,
        "charrnn": importlib.metadata.version("charrnn"),
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
        "knee": knee,
        "notes": [note for report in reports for note in notes(report)],
        "runs": list(reports),
    }


def read_document(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The document that ``charrnn bench --json`` wrote.

    Raises:
        DataError: a file that cannot be read or is something else.
    """
    try:
        read = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if not isinstance(read, dict) or read.get("format") != FORMAT:
        raise DataError(f"{path} is no {FORMAT} document; charrnn bench ADDR --json writes one")
    runs = read.get("runs")
    if not isinstance(runs, list) or not runs or not all(_is_report(run) for run in runs):
        raise DataError(f"{path} has no runs: it is damaged")
    return read


def _is_report(run: Any) -> bool:
    """Whether all figures are where they have to be."""
    try:
        return bool(load_name(run)) and all(figure(run, path) or True for path in FIGURES.values())
    except (KeyError, TypeError, ValueError):
        return False


def figure(report: Report, path: Sequence[str]) -> float | None:
    """A figure of a report; ``None`` where nothing was measured."""
    value: Any = report
    for name in path:
        value = None if value is None else value[name]
    return None if value is None else float(value)


def shown(value: float | None) -> str:
    """Four digits, or whole numbers with their thousands apart."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def load_name(report: Report) -> str:
    """``50 requests/s`` or ``64 streams``."""
    load = report["plan"]["load"]
    if "closed" in load:
        return f"{load['closed']['streams']:,} streams"
    return f"{load['open']['rate']:,g} requests/s"


def notes(report: Report) -> Iterator[str]:
    """What a reader of the figures has to know."""
    lag, first = figure(report, ("lag_ms", "p99")), figure(report, ("first_char_ms", "p50"))
    if lag is not None and lag > max(1.0, 0.1 * (first or 0.0)):
        yield (
            f"{load_name(report)}: requests were sent up to {lag:.1f} ms late (p99), which is in all "
            "latencies: the generator was short of processor; give it --threads, or a machine of its own"
        )
    if dropped := report["outcomes"].get("dropped"):
        yield f"{load_name(report)}: {dropped:,} requests were not sent, as --max-active were under way"
    if report["interrupted"]:
        yield f"{load_name(report)}: cut short after {report['window_s']:.1f} s that count"
    yield from (f"{load_name(report)}: {message}" for message in report["messages"][:3])


@dataclass(frozen=True)
class Compared:
    """A figure of two documents at the same load."""

    load: str
    name: str
    before: float
    after: float

    @property
    def ratio(self) -> float | None:
        """The second by the first."""
        return self.after / self.before if self.before else None


def compare(before: dict[str, Any], after: dict[str, Any]) -> Iterator[Compared]:
    """The figures that both documents have, of the loads that both ran; of the only runs if each has one."""
    for first, second in _pairs(before["runs"], after["runs"]):
        for name, path in FIGURES.items():
            values = figure(first, path), figure(second, path)
            if values[0] is not None and values[1] is not None:
                yield Compared(load_name(first), name, *values)  # type: ignore[arg-type]


def _pairs(before: Sequence[Report], after: Sequence[Report]) -> Iterator[tuple[Report, Report]]:
    if len(before) == len(after) == 1:
        yield before[0], after[0]
        return
    others = {load_name(report): report for report in after}
    yield from ((report, others[name]) for report in before if (name := load_name(report)) in others)


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Settings in which the first runs of two documents differ, but for where the server was."""
    plans = [document["runs"][0]["plan"] for document in (before, after)]
    names = sorted(set(plans[0]) | set(plans[1]))
    apart = {"address", "csv", "load"}
    return [name for name in names if name not in apart and plans[0].get(name) != plans[1].get(name)]

"""Runs on one HTML page, and where it is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from charrnn.bench.document import FIGURES, figure, load_name, shown
from charrnn.bench.load import Report
from charrnn.errors import CharrnnError, DataError
from charrnn.report.html import document, facts, table, text
from charrnn.report.html import figure as picture

_CAPTIONS = {
    "latency": "From when a request was due until its first character, by load.",
    "throughput": "Characters that came, and requests that met the SLO.",
    "times": "How the times of the last run are spread. The axis stretches towards the slowest.",
    "course": "The last run, second by second.",
}


def make_folder(folder: Path) -> None:
    """See that a page can be kept there.

    Raises:
        DataError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "index.html").touch()
    except OSError as error:
        raise DataError(f"cannot write {folder / 'index.html'}: {error.strerror}") from error


def write_page(folder: Path, made: Mapping[str, Any]) -> list[Path]:
    """Write ``index.html`` and a PNG file for each plot of a document into ``folder``; their paths.

    Raises:
        CharrnnError: matplotlib is not installed.
        DataError: a file cannot be written.
    """
    try:
        from charrnn.bench.figures import draw_figures
    except ModuleNotFoundError as error:
        raise CharrnnError(f"a report needs {error.name}: pip install 'charrnn[bench]'") from error
    figures = draw_figures(made["runs"])
    files = {folder / "index.html": render(made, figures).encode()}
    files |= {folder / f"{name}.png": png for name, png in figures.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            path.write_bytes(content)
    except OSError as error:
        raise DataError(f"cannot write {error.filename}: {error.strerror}") from error
    return list(files)


def render(made: Mapping[str, Any], figures: Mapping[str, bytes]) -> str:
    """The page of a document, with ``figures`` as PNG files by name."""
    return document(f"Load on {made['runs'][0]['plan']['address']}", "\n".join(_sections(made, figures)))


def _sections(made: Mapping[str, Any], figures: Mapping[str, bytes]) -> Iterator[str]:
    reports: Sequence[Report] = made["runs"]
    yield f"<h1>Load on {text(reports[0]['plan']['address'])}</h1>"
    yield facts(_facts(made))
    yield from (f'<p class="note">{text(note)}</p>' for note in made["notes"])
    yield "<h2>Figures</h2>" + _figures(reports)
    for name, png in figures.items():
        yield picture(png, _CAPTIONS[name])
    yield "<h2>Outcomes</h2>" + _outcomes(reports)
    plan = text(json.dumps(reports[0]["plan"], indent=1, ensure_ascii=False))
    yield f"<h2>Plan</h2><details><summary>Of the first run</summary><pre>{plan}</pre></details>"


def _facts(made: Mapping[str, Any]) -> dict[str, str]:
    found = {"made": made["made"], "charrnn": made["charrnn"], "machine": made["machine"]["system"]}
    found["cores"] = str(made["machine"]["cores"])
    if made["knee"] is not None:
        found["knee"] = f"{made['knee']:,g} requests/s: the highest rate tried at which the SLO held"
    return found


def _figures(reports: Sequence[Report]) -> str:
    rows = []
    for name, path in FIGURES.items():
        rows.append(("", [name, *(shown(figure(report, path)) for report in reports)]))
    return table(["", *map(load_name, reports)], rows)


def _outcomes(reports: Sequence[Report]) -> str:
    names = sorted({name for report in reports for name in report["outcomes"]})
    rows = [("", [name, *(f"{report['outcomes'].get(name, 0):,}" for report in reports)]) for name in names]
    return table(["", *map(load_name, reports)], rows)

"""Where a report is kept: one page, and its plots as PNG files in RUN/report."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from charrnn.errors import DataError
from charrnn.report.figures import draw_figures
from charrnn.report.gather import gather
from charrnn.report.page import render
from charrnn.training.files import replacing


def write_report(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    which: Literal["best", "last"] = "best",
    dynamic: bool = False,
) -> list[Path]:
    """Write the page of a run, ``RUN/report/index.html`` or ``out``, and ``RUN/report/*.png``; their paths.

    Raises:
        CheckpointError: there is no run, or a file of it is damaged.
        DataError: a file cannot be written.
    """
    folder = Path(run) / "report"
    page = folder / "index.html" if out is None else Path(out)
    if out is not None and not page.parent.is_dir():  # before minutes of measuring
        raise DataError(f"cannot write {page}: there is no folder {page.parent}")
    report = gather(run, which=which, dynamic=dynamic)
    figures = draw_figures(report)
    files = {folder / f"{name}.png": png for name, png in figures.items()}
    files = {page: render(report, figures).encode(), **files}
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write {folder}: {error.strerror}") from error
    for path, content in files.items():
        _write(path, content)
    return list(files)


def _write(path: Path, content: bytes) -> None:
    try:
        with replacing(path) as file:
            file.write(content)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error

"""How far a file is, on stderr of a terminal."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn


@contextmanager
def bytes_done(path: str) -> Iterator[Callable[[int], None]]:
    """A function that is told how many bytes of the file at ``path`` are done."""
    console = Console(stderr=True)
    total = os.path.getsize(path) if os.path.isfile(path) else None
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)
        yield lambda num_bytes: progress.update(task, completed=num_bytes)

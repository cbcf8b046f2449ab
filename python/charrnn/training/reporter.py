"""What a person sees while a model trains: a bar on a terminal, plain lines elsewhere, nothing by default.

Knows numbers and stderr. Where nobody reads any more, it falls silent; training goes on.
"""

from __future__ import annotations

import math
import sys
import time
from typing import IO, TYPE_CHECKING

from charrnn.training.callbacks import Callback, Evaluated, Stepped
from charrnn.training.forecast import span

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

_PLAIN_EVERY_S = 5.0
# A redraw takes a core from training for a few milliseconds.
_REDRAWS_PER_S = 2.0
# Weight of the newest step in the running means of step time and loss.
_NEWEST = 0.05


class PlainReporter(Callback):
    """A line every few seconds, for logs."""

    def __init__(self, file: IO[str] | None = None) -> None:
        self._file: IO[str] | None = file or sys.stderr
        self._pace = _Pace()
        self._shown_at = time.monotonic()

    def note(self, text: str) -> None:
        """Print it."""
        self._pace.pause()
        self._print(text)

    def stepped(self, stepped: Stepped) -> None:
        """Print the state of affairs if the last line is old enough."""
        self._pace.stepped(stepped)
        if time.monotonic() - self._shown_at >= _PLAIN_EVERY_S:
            self._shown_at = time.monotonic()
            at = f"step {stepped.step}/{stepped.total_steps or '?'}"
            self._print(f"{at}  {self._pace.text(stepped)}")

    def evaluated(self, evaluated: Evaluated) -> None:
        """Print the loss."""
        self.note(_evaluation(evaluated))

    def _print(self, text: str) -> None:
        try:
            if self._file is not None:
                print(text, file=self._file, flush=True)
        except BrokenPipeError:
            self._file = None


class BarReporter(Callback):
    """A progress bar at the bottom of a terminal, with lines for evaluations above it."""

    def __init__(self, console: Console | None = None) -> None:
        # Only here: where there is no terminal, nobody waits for what it takes to load.
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._pace = _Pace()
        self._task: TaskID | None = None
        self._bar = Progress(
            TextColumn("{task.completed}/{task.fields[total_text]}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[pace]}"),
            TimeElapsedColumn(),
            console=console or Console(stderr=True),
            refresh_per_second=_REDRAWS_PER_S,
            transient=True,
        )

    def note(self, text: str) -> None:
        """Print it above the bar."""
        self._pace.pause()
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def stepped(self, stepped: Stepped) -> None:
        """Move the bar, which appears with the first step."""
        self._pace.stepped(stepped)
        if self._task is None:
            self._task = self._bar.add_task("", total=stepped.total_steps, total_text="?", pace="")
            self._bar.start()
        self._bar.update(
            self._task,
            completed=stepped.step,
            total=stepped.total_steps,
            total_text=stepped.total_steps or "?",
            pace=self._pace.text(stepped),
        )

    def evaluated(self, evaluated: Evaluated) -> None:
        """Print the loss above the bar."""
        self.note(_evaluation(evaluated))

    def close(self) -> None:
        """Take the bar away."""
        self._bar.stop()


def terminal_reporter() -> PlainReporter | BarReporter:
    """A bar if stderr is a terminal, plain lines if not."""
    return BarReporter() if sys.stderr.isatty() else PlainReporter()


class _Pace:
    """Running means of step time and loss. Time between ``pause`` and the next step does not count."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._step_s: float | None = None
        self._nats: float | None = None

    def pause(self) -> None:
        self._last = None

    def stepped(self, stepped: Stepped) -> None:
        now = time.monotonic()
        if self._last is not None:
            self._step_s = _mean(self._step_s, now - self._last)
        if math.isfinite(stepped.nats):
            self._nats = _mean(self._nats, stepped.nats)
        self._last = now

    def text(self, stepped: Stepped) -> str:
        nats = self._nats if self._nats is not None else math.nan
        told = f"train {nats:.3f} nats {nats / math.log(2):.3f} bpc"
        if not self._step_s:
            return told
        total = stepped.total_steps
        left = "?" if total is None else span((total - stepped.step) * self._step_s)
        return f"{told}  {stepped.num_tokens / self._step_s:,.0f} chars/s  ETA {left}"


def _mean(mean: float | None, value: float) -> float:
    return value if mean is None else mean + _NEWEST * (value - mean)


def _evaluation(evaluated: Evaluated) -> str:
    best = "  best so far" if evaluated.is_best else ""
    nats, bpc = evaluated.loss.nats, evaluated.loss.bpc
    return f"step {evaluated.step}: validation {nats:.4f} nats {bpc:.4f} bpc (split {evaluated.split}){best}"

from __future__ import annotations

import io

import pytest
from rich.console import Console

from charrnn.training import reporter
from charrnn.training.callbacks import Callback, Evaluated, Stepped
from charrnn.training.evaluation import Loss
from charrnn.training.reporter import BarReporter, PlainReporter


def told(shown: Callback) -> None:
    shown.note("a [note]")
    for step in range(1, 4):
        shown.stepped(Stepped(step, 10 if step > 1 else None, 2.0, 3200, 0.01, 1.0))
    shown.evaluated(Evaluated(3, "tail", Loss(1.0, 100), is_best=True))
    shown.close()


def test_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporter, "_PLAIN_EVERY_S", 0.0)
    file = io.StringIO()
    told(PlainReporter(file))
    lines = file.getvalue().splitlines()
    assert lines[0] == "a [note]"
    assert lines[1] == "step 1/?  train 2.000 nats 2.885 bpc"
    assert lines[2].startswith("step 2/10  train 2.000 nats 2.885 bpc  ")
    assert "chars/s  ETA" in lines[2]
    assert lines[4] == "step 3: validation 1.0000 nats 1.4427 bpc (split tail)  best so far"


def test_old_lines_are_not_repeated_too_soon() -> None:
    file = io.StringIO()
    told(PlainReporter(file))
    assert [line.split()[0] for line in file.getvalue().splitlines()] == ["a", "step"]


def test_nobody_reading_is_no_error() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    told(PlainReporter(Closed()))


def test_a_bar_with_lines_above_it() -> None:
    file = io.StringIO()
    told(BarReporter(Console(file=file, force_terminal=True, width=100)))
    assert "a [note]" in file.getvalue()
    assert "step 3: validation 1.0000 nats 1.4427 bpc (split tail)  best so far" in file.getvalue()
    assert "3/10" in file.getvalue()


def test_the_bar_need_not_appear() -> None:
    BarReporter(Console(file=io.StringIO(), force_terminal=True)).close()

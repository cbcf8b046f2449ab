"""What a run does when numbers, disks or memory fail."""

from __future__ import annotations

import math
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from charrnn.errors import CharrnnError, CheckpointError, DivergedError
from charrnn.training import TrainConfig, Trainer, load_run
from charrnn.training.callbacks import Callback
from charrnn.training.learner import Learner, Learnt


class Notes(Callback):
    """Keeps what is said to people."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Calls of ``learn`` that meet a weight that is NaN; of a negative number it stays so."""
    learn, calls, count = Learner.learn, set[int](), 0

    def poisoned_learn(self: Learner, inputs: torch.Tensor, targets: torch.Tensor, lr: float) -> Learnt:
        nonlocal count
        count += 1
        bias = self.model.head.bias.detach()
        good = bias[0].clone()
        if count in calls or -count in calls:
            bias[0] = math.nan
        learnt = learn(self, inputs, targets, lr)
        if count in calls:
            bias[0] = good
        return learnt

    monkeypatch.setattr(Learner, "learn", poisoned_learn)
    return calls


def fit(config: TrainConfig, corpus: Path, out: Path) -> list[str]:
    notes = Notes()
    Trainer(config, callbacks=[notes]).fit(corpus, out=out)
    return notes.lines


def test_stop_ends_at_the_first_and_keeps_its_batch(
    corpus: Path, small: TrainConfig, tmp_path: Path, poisoned: set[int]
) -> None:
    poisoned.add(9)
    told = r"at step 9: .*; its batch is in .*; the last good .* step-0000007"
    with pytest.raises(DivergedError, match=told) as met:
        fit(small.replace(on_nan="stop"), corpus, tmp_path / "run")
    assert met.value.exit_code == 4
    batch = load_file(str(met.value).split("its batch is in ")[1].split(";")[0])
    assert batch["inputs"].shape == batch["targets"].shape == (4, batch["inputs"].shape[1])
    assert batch["inputs"][:, 1:].equal(batch["targets"][:, :-1])


def test_rollback_goes_on_from_the_last_checkpoint(
    corpus: Path, small: TrainConfig, tmp_path: Path, poisoned: set[int]
) -> None:
    poisoned |= {3, -9}  # a weight stays NaN from the 9th on, which skipping would not cure
    lines = fit(small.replace(on_nan="rollback"), corpus, tmp_path / "run")
    assert any(line.endswith("there is no checkpoint yet to go back to") for line in lines)
    assert any(line.endswith("step not applied, and back to the weights of step-0000007") for line in lines)
    run = load_run(tmp_path / "run", "last")
    assert run.step == 30
    assert all(bool(weight.isfinite().all()) for weight in run.model.parameters())


@pytest.mark.parametrize(("max_skipped", "ends"), [(1, True), (2, True), (3, False)])
def test_so_many_in_a_row_are_too_many(
    corpus: Path, small: TrainConfig, tmp_path: Path, poisoned: set[int], max_skipped: int, ends: bool
) -> None:
    poisoned |= {4, 5, 7, 8}
    config = small.replace(max_skipped=max_skipped)
    if ends:
        with pytest.raises(DivergedError, match=f"at step {3 + max_skipped}: "):
            fit(config, corpus, tmp_path / "run")
    else:
        assert sum("step not applied" in line for line in fit(config, corpus, tmp_path / "run")) == 4


@contextmanager
def files_up_to(num_bytes: int) -> Iterator[None]:
    """The disk takes no longer files: EFBIG."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class FullFrom(Callback):
    """From a step on, until another, the disk is full."""

    def __init__(self, start: int, end: int) -> None:
        self._steps = range(start, end)
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def stepped(self, stepped: object) -> None:
        is_full = stepped.step in self._steps  # type: ignore[attr-defined]
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000 if is_full else self.before[0], self.before[1]))


def test_a_disk_that_is_full_for_a_while_costs_a_warning(
    corpus: Path, small: TrainConfig, tmp_path: Path
) -> None:
    notes = Notes()
    with files_up_to(resource.getrlimit(resource.RLIMIT_FSIZE)[0]):
        Trainer(small, callbacks=[notes, FullFrom(14, 25)]).fit(corpus, out=tmp_path / "run")
    warnings = [line for line in notes.lines if line.startswith("warning: cannot save checkpoint ")]
    assert warnings
    assert all("bytes: " in line and "File too large" in line for line in warnings), warnings
    assert load_run(tmp_path / "run", "last").step == 30
    assert not list((tmp_path / "run/checkpoints").glob("*.*"))


def test_strict_save_ends_with_the_earlier_checkpoint(
    corpus: Path, small: TrainConfig, tmp_path: Path
) -> None:
    config = small.replace(strict_save=True)
    with (
        files_up_to(resource.getrlimit(resource.RLIMIT_FSIZE)[0]),
        pytest.raises(CheckpointError, match="earlier checkpoints are untouched") as met,
    ):
        Trainer(config, callbacks=[FullFrom(14, 25)]).fit(corpus, out=tmp_path / "run")
    assert met.value.exit_code == 3
    assert load_run(tmp_path / "run", "last").step < 14
    Trainer(config).fit(out=tmp_path / "run", resume=True)
    assert load_run(tmp_path / "run", "last").step == 30


def test_patience_ends_a_run_that_does_not_get_better(
    corpus: Path, small: TrainConfig, tmp_path: Path
) -> None:
    config = small.replace(lr=1e-12, schedule="constant", patience=2, eval_every=3)
    result = Trainer(config).fit(corpus, out=tmp_path / "run")
    assert result.is_stale
    assert result.step < 30


def test_a_lack_of_memory_is_told_by_what_takes_it(
    corpus: Path, small: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn, count = Learner.learn, 0

    def greedy(self: Learner, inputs: torch.Tensor, targets: torch.Tensor, lr: float) -> Learnt:
        nonlocal count
        count += 1
        if count == 10:
            torch.empty(2**50)
        return learn(self, inputs, targets, lr)

    monkeypatch.setattr(Learner, "learn", greedy)
    told = "out of memory: batch_size 4 x bptt 16 x .*; the last good checkpoint is step-0000007: lower one"
    with pytest.raises(CharrnnError, match=told):
        fit(small, corpus, tmp_path / "run")
    assert load_run(tmp_path / "run", "last").step == 7

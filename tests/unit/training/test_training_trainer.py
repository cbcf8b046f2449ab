from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from charrnn.errors import CharrnnError, CheckpointError, ConfigError, DataError, DivergedError
from charrnn.training import TrainConfig, Trainer, evaluate, load_run, loop, setup
from charrnn.training.checkpoint import MODEL, list_checkpoints
from charrnn.training.learner import Learner, Learnt
from charrnn.training.run_folder import RunFolder
from charrnn.training.saving import Saver
from charrnn.training.setup import corpora_at
from tests.runs import Diary, last_weights


@pytest.fixture(autouse=True)
def _frequent_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several lines of metrics even in short runs, and not at the steps of checkpoints."""
    monkeypatch.setattr(loop, "LOG_EVERY", 9)


def metrics(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("elapsed_s", None)
    return lines


def test_a_run_holds_all_that_is_told_of_it(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    diary = Diary()
    config = small.replace(sample_at=(5,))
    result = Trainer(config, callbacks=[diary]).fit(corpus, out=tmp_path / "run")
    assert diary.steps == list(range(1, 31))
    assert [(step, split) for step, split, _, _ in diary.losses] == [(11, "tail"), (22, "tail"), (30, "tail")]
    assert result.step == 30
    assert result.stopped_by is None
    assert len(result.sample) == config.sample_chars
    assert (tmp_path / "run/samples/step-0000030.txt").read_text() == result.sample
    assert (tmp_path / "run/samples/step-0000005.txt").exists()

    run = load_run(tmp_path / "run")
    best = min(diary.losses, key=lambda loss: loss[2])
    assert best[3]
    assert (result.best_step, result.best_nats) == (best[0], best[2])
    assert run.step == best[0]
    assert run.losses["validation"] == best[2]
    assert not run.model.training
    assert evaluate(run.model, run.tokens["validation"]).nats == best[2]
    assert run.vocab.decode(np.concatenate(list(run.tokens.values()))) == corpus.read_text()
    assert set(run.summary()) >= {"corpus", "split", "step", "losses"}
    json.dumps(run.summary())
    assert load_run(tmp_path / "run", "last").step == 30
    kept = json.loads((tmp_path / "run/run.json").read_text())["checkpoints"]
    assert set(list_checkpoints(tmp_path / "run/checkpoints")) == set(kept.values())
    assert kept["previous"] == "step-0000028"


def test_metrics_tell_the_mean_since_the_line_before(
    corpus: Path, small: TrainConfig, tmp_path: Path
) -> None:
    diary = Diary()
    result = Trainer(small, callbacks=[diary]).fit(corpus, out=tmp_path / "run")
    lines = [line for line in metrics(tmp_path / "run") if line["kind"] == "train"]
    assert [line["step"] for line in lines] == [9, 18, 27, 30]
    for line, start in zip(lines, [0, 9, 18, 27], strict=True):
        mean = sum(diary.nats[start : line["step"]]) / (line["step"] - start)
        assert line["train_nats"] == pytest.approx(mean, rel=1e-12)
    assert result.losses["train"] == lines[-1]["train_nats"]


def test_every_epoch_starts_from_the_zero_state(
    corpus: Path, small: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn, is_zero = Learner.learn, list[bool]()

    def noting(self: Learner, inputs: torch.Tensor, targets: torch.Tensor, lr: float) -> Learnt:
        is_zero.append(not any(bool(tensor.any()) for tensor in self.state))
        return learn(self, inputs, targets, lr)

    monkeypatch.setattr(Learner, "learn", noting)
    config = small.replace(max_steps=None, max_epochs=2, batch_size=16)
    Trainer(config).fit(corpus, out=tmp_path / "run")
    steps_per_epoch = len(is_zero) // 2
    assert steps_per_epoch > 3
    assert is_zero == [True, *[False] * (steps_per_epoch - 1)] * 2


def test_learning_lowers_the_loss(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    diary = Diary()
    config = small.replace(max_steps=400, eval_every=50, hidden_size=24, dropout=0.0)
    Trainer(config, callbacks=[diary]).fit(corpus, out=tmp_path / "run")
    uniform = math.log(len(load_run(tmp_path / "run").vocab))
    assert diary.losses[-1][2] < 0.5 * uniform


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("signal_at", [1, 13, 29])
def test_a_stopped_run_resumes_to_the_same_bytes(
    cell: str, signal_at: int, corpus: Path, small: TrainConfig, tmp_path: Path
) -> None:
    config = small.replace(cell=cell)
    whole = Trainer(config).fit(corpus, out=tmp_path / "whole")
    stopped = Trainer(config, callbacks=[Diary(signal_at)]).fit(corpus, out=tmp_path / "run")
    assert (stopped.stopped_by, stopped.step, stopped.sample) == (signal.SIGTERM, signal_at, "")
    resumed = Trainer(config).fit(out=tmp_path / "run", resume=True)
    assert last_weights(tmp_path / "run") == last_weights(tmp_path / "whole")
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
    assert (resumed.sample, resumed.losses) == (whole.sample, whole.losses)


def test_a_finished_run_resumes_to_itself(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    first = Trainer(small).fit(corpus, out=tmp_path / "run")
    before = last_weights(tmp_path / "run"), metrics(tmp_path / "run")
    again = Trainer(small).fit(out=tmp_path / "run", resume=True)
    assert again == first
    assert (last_weights(tmp_path / "run"), metrics(tmp_path / "run")) == before


def test_a_damaged_checkpoint_is_told_and_the_one_before_it_taken(
    corpus: Path, small: TrainConfig, tmp_path: Path
) -> None:
    Trainer(small).fit(corpus, out=tmp_path / "run")
    whole = last_weights(tmp_path / "run")
    path = tmp_path / "run/checkpoints/step-0000030" / MODEL
    path.write_bytes(whole[:-1] + b"!")
    with pytest.raises(CheckpointError, match=r"step-0000030/model.safetensors is damaged: expected sha256"):
        load_run(tmp_path / "run", "last")
    diary = Diary()
    Trainer(small, callbacks=[diary]).fit(out=tmp_path / "run", resume=True)
    assert "falling back to the checkpoint before it" in diary.notes[0]
    assert diary.steps[0] == 29
    assert last_weights(tmp_path / "run") == whole
    assert load_run(tmp_path / "run", "last").step == 30


def test_without_an_intact_checkpoint_nothing_is_trained(
    corpus: Path, small: TrainConfig, tmp_path: Path
) -> None:
    Trainer(small).fit(corpus, out=tmp_path / "run")
    for path in (tmp_path / "run/checkpoints").rglob("state.json"):
        path.write_text("{}")
    with pytest.raises(CheckpointError, match=r"step-0000030/state.json is damaged"):
        Trainer(small).fit(out=tmp_path / "run", resume=True)


def test_a_checkpoint_of_other_settings_is_refused(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    Trainer(small).fit(corpus, out=tmp_path / "run")
    RunFolder(tmp_path / "run").write_config(small.replace(lr=0.02))
    with pytest.raises(ConfigError, match=r"lr is 0.01 in the run and 0.02 was given"):
        Trainer(small.replace(lr=0.02)).fit(out=tmp_path / "run", resume=True)


def test_another_vocabulary_is_refused(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    Trainer(small).fit(corpus, out=tmp_path / "run")
    path = tmp_path / "run/vocab.json"
    vocab = json.loads(path.read_text())
    vocab["symbols"].reverse()
    path.write_text(json.dumps(vocab))
    with pytest.raises(CheckpointError, match="not the vocabulary of the checkpoint: expected sha256"):
        load_run(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"vocab.json is not the checkpoint's"):
        Trainer(small).fit(out=tmp_path / "run", resume=True)


def test_what_is_there_is_not_overwritten(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    Trainer(small).fit(corpus, out=tmp_path / "run")
    for folder in ("run", "own"):
        (tmp_path / "own").mkdir(exist_ok=True)
        (tmp_path / "own/thesis.txt").write_text("mine")
        with pytest.raises(ConfigError, match=f"{folder} exists and is not empty: give --resume"):
            Trainer(small).fit(corpus, out=tmp_path / folder)
    with pytest.raises(ConfigError, match="own exists and is not empty"):
        Trainer(small).fit(corpus, out=tmp_path / "own", resume=True)
    with pytest.raises(ConfigError, match="new holds no run to resume: give the corpus"):
        Trainer(small).fit(out=tmp_path / "new", resume=True)
    assert not (tmp_path / "new").exists()


def test_resume_begins_a_run_that_is_not_there(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert Trainer(small).fit(corpus, out=tmp_path / "run", resume=True).step == 30


def test_a_changed_text_is_refused_unless_allowed(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    stopped = Trainer(small, callbacks=[Diary(13)]).fit(corpus, out=tmp_path / "run")
    assert stopped.step == 13
    corpus.write_text(corpus.read_text() * 2)
    for given in (None, corpus):
        with pytest.raises(ConfigError, match=r"corpus has changed .* --allow-data-change"):
            Trainer(small).fit(given, out=tmp_path / "run", resume=True)
    diary = Diary()
    changing = Trainer(small, callbacks=[diary])
    result = changing.fit(out=tmp_path / "run", resume=True, allow_data_change=True)
    assert result.step == 30
    assert "the corpus has changed: going on at its beginning" in diary.notes
    run = load_run(tmp_path / "run")
    assert run.vocab.decode(np.concatenate(list(run.tokens.values()))) == corpus.read_text()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_run_keeps_the_text_it_was_trained_on(
    corpus: Path, small: TrainConfig, tmp_path: Path
) -> None:
    first = Trainer(small).fit(corpus, out=tmp_path / "run")
    before = contents(tmp_path / "run")
    corpus.write_text(corpus.read_text() * 2)
    diary = Diary()
    trainer = Trainer(small.replace(threads=2), callbacks=[diary])
    assert trainer.fit(out=tmp_path / "run", resume=True, allow_data_change=True).losses == first.losses
    assert diary.steps == []
    assert any("there is nothing to train" in note for note in diary.notes)
    corpus.unlink()
    Trainer(small).fit(out=tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == before


def test_a_run_over_two_texts_tells_both(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    texts = [corpus.read_text(), corpus.read_text() * 2, corpus.read_text() * 3]
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    config = small.replace(eval_every=9)
    Trainer(config, callbacks=[Diary(13)]).fit(corpus, out=tmp_path / "run")
    assert "earlier_corpora" not in load_run(tmp_path / "run", "last").summary()
    for text, signal_at in ((texts[1], 20), (texts[2], None)):
        corpus.write_text(text)
        Trainer(config, callbacks=[Diary(signal_at)]).fit(
            out=tmp_path / "run", resume=True, allow_data_change=True
        )
    info = json.loads((tmp_path / "run/run.json").read_bytes())
    told = [(text["sha256"], text.get("until_step")) for text in [*info["earlier_corpora"], info["corpus"]]]
    assert told == [(digests[0], 13), (digests[1], 20), (digests[2], None)]
    summary = load_run(tmp_path / "run", "last").summary()
    assert summary["corpus"] == {"name": "corpus.txt", "sha256": digests[2]}
    assert [text["sha256"] for text in summary["earlier_corpora"]] == digests[:2]


def test_a_checkpoint_tells_the_texts_it_has_seen(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    texts = [{"sha256": "a", "until_step": 13}, {"sha256": "b", "until_step": 20}]
    info = {"earlier_corpora": texts, "corpus": {"sha256": "c"}}
    seen = {step: "".join(text["sha256"] for text in corpora_at(info, step)) for step in (0, 13, 14, 20, 21)}
    assert seen == {0: "a", 13: "a", 14: "ab", 20: "ab", 21: "abc"}


def test_losses_of_two_texts_are_not_compared(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    Trainer(small, callbacks=[Diary(13)]).fit(corpus, out=tmp_path / "run")
    corpus.write_text(corpus.read_text()[::-1])
    again = Diary()
    result = Trainer(small, callbacks=[again]).fit(out=tmp_path / "run", resume=True, allow_data_change=True)
    assert again.losses[0][3]
    assert result.best_step is not None
    assert result.best_step > 13


def test_the_new_text_may_go_before_the_first_checkpoint_on_it(
    corpus: Path, small: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Trainer(small, callbacks=[Diary(13)]).fit(corpus, out=tmp_path / "run")
    corpus.write_text(corpus.read_text() * 2)
    _take_up_the_text_and_die(small, tmp_path / "run", monkeypatch)
    corpus.unlink()
    with pytest.raises(ConfigError, match=r"tokens.bin has \w+; restore it, or go on .* --allow-data-change"):
        Trainer(small).fit(out=tmp_path / "run", resume=True)
    result = Trainer(small).fit(out=tmp_path / "run", resume=True, allow_data_change=True)
    assert result.step == 30
    assert load_run(tmp_path / "run", "last").summary()["earlier_corpora"][0]["until_step"] == 13


def test_falling_back_moves_the_step_of_the_change(
    corpus: Path, small: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Trainer(small, callbacks=[Diary(13)]).fit(corpus, out=tmp_path / "run")
    corpus.write_text(corpus.read_text() * 2)
    _take_up_the_text_and_die(small, tmp_path / "run", monkeypatch)
    (tmp_path / "run/checkpoints/step-0000013" / MODEL).write_bytes(b"")
    Trainer(small).fit(out=tmp_path / "run", resume=True, allow_data_change=True)
    summary = load_run(tmp_path / "run", "last").summary()
    assert [text["until_step"] for text in summary["earlier_corpora"]] == [11]


def _take_up_the_text_and_die(config: TrainConfig, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> Learnt:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "learn", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Trainer(config).fit(out=run, resume=True, allow_data_change=True)


def test_a_missing_encoded_text_is_called_missing(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    Trainer(small).fit(corpus, out=tmp_path / "run")
    corpus.unlink()
    (tmp_path / "run/tokens.bin").unlink()
    with pytest.raises(CheckpointError, match=r"tokens.bin is missing and .* give the corpus with sha256"):
        Trainer(small).fit(out=tmp_path / "run", resume=True)


@pytest.mark.parametrize("failing", ["device", "model", "disk"])
def test_what_fails_to_begin_leaves_nothing(
    failing: str, corpus: Path, small: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    expected = {
        "device": (ConfigError, "device is 'cuda:99' and torch sees"),
        "model": (CharrnnError, "out of memory: batch_size 4 x bptt 16 x hidden_size 12 .*: lower one"),
        "disk": (CheckpointError, "cannot use run folder .*run: No space left on device; see that"),
    }[failing]
    config = small.replace(device="cuda:99") if failing == "device" else small
    with monkeypatch.context() as patch:
        if failing == "model":
            patch.setattr(Learner, "__init__", no_memory)
        elif failing == "disk":
            patch.setattr(setup, "write_tokens", full)
        with pytest.raises(expected[0], match=expected[1]):
            Trainer(config).fit(corpus, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert Trainer(small).fit(corpus, out=tmp_path / "run").step == 30


def test_only_settings_are_settings() -> None:
    with pytest.raises(TypeError, match="config is of type dict: give a TrainConfig, or None"):
        Trainer({})  # type: ignore[arg-type]


def test_a_single_damaged_checkpoint_has_none_before_it(
    corpus: Path, small: TrainConfig, tmp_path: Path
) -> None:
    Trainer(small.replace(max_steps=5)).fit(corpus, out=tmp_path / "run")
    (tmp_path / "run/checkpoints/step-0000005" / MODEL).write_bytes(b"")
    diary = Diary()
    with pytest.raises(CheckpointError, match=r"is damaged: .*; no checkpoint is left: start a new run"):
        Trainer(small.replace(max_steps=5), callbacks=[diary]).fit(out=tmp_path / "run", resume=True)
    assert diary.notes == []


def test_a_name_that_is_not_utf8_is_kept(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    odd = corpus.with_name(os.fsdecode(b"caf\xe9.txt"))
    corpus.rename(odd)
    Trainer(small, callbacks=[Diary(13)]).fit(odd, out=tmp_path / "run")
    assert Trainer(small).fit(out=tmp_path / "run", resume=True).step == 30
    assert load_run(tmp_path / "run").summary()["corpus"]["name"] == r"caf\udce9.txt"


def test_a_changed_text_may_not_bring_new_symbols(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    Trainer(small, callbacks=[Diary(13)]).fit(corpus, out=tmp_path / "run")
    corpus.write_text(corpus.read_text() + "€")
    with pytest.raises(DataError, match=r"U\+20AC"):
        Trainer(small).fit(out=tmp_path / "run", resume=True, allow_data_change=True)


def test_a_text_that_has_gone_is_not_needed(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    Trainer(small).fit(corpus, out=tmp_path / "whole")
    Trainer(small, callbacks=[Diary(13)]).fit(corpus, out=tmp_path / "run")
    text = corpus.read_text()
    corpus.unlink()
    Trainer(small).fit(out=tmp_path / "run", resume=True)
    assert last_weights(tmp_path / "run") == last_weights(tmp_path / "whole")
    tokens = tmp_path / "run/tokens.bin"
    tokens.write_bytes(b"\0" + tokens.read_bytes()[1:])
    with pytest.raises(CheckpointError, match=r"tokens.bin is damaged and .*corpus.txt has gone"):
        Trainer(small).fit(out=tmp_path / "run", resume=True)
    corpus.write_text(text)
    Trainer(small).fit(out=tmp_path / "run", resume=True)
    assert load_run(tmp_path / "run").tokens["train"][0] == tokens.read_bytes()[0] != 0


def test_other_threads_are_a_warning(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    Trainer(small, callbacks=[Diary(13)]).fit(corpus, out=tmp_path / "run")
    diary = Diary()
    Trainer(small.replace(threads=2), callbacks=[diary]).fit(out=tmp_path / "run", resume=True)
    assert "warning: threads was 1 and is 2: the run goes on, but not bit-exact" in diary.notes
    assert load_run(tmp_path / "run").config.threads == 2


@pytest.mark.parametrize(
    ("field", "was"), [("torch", "1.0.0"), ("device", "cuda"), ("threads", 64), ("world_size", 2)]
)
def test_whatever_rounds_differently_is_a_warning_and_the_run_goes_on(
    corpus: Path, small: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str, was: object
) -> None:
    state = Saver._state
    monkeypatch.setattr(Saver, "_state", lambda self: {**state(self), field: was})
    Trainer(small, callbacks=[Diary(13)]).fit(corpus, out=tmp_path / "run")
    monkeypatch.undo()
    diary = Diary()
    Trainer(small, callbacks=[diary]).fit(out=tmp_path / "run", resume=True)
    warnings = [note for note in diary.notes if note.startswith(f"warning: {field} was {was} and is ")]
    assert len(warnings) == 1
    assert warnings[0].endswith(": the run goes on, but not bit-exact")
    assert load_run(tmp_path / "run", "last").step == small.max_steps


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[int]]:
    """Steps whose weights hold a NaN for their duration; the set may be changed."""
    learn, steps, count = Learner.learn, set[int](), 0

    def poisoned_learn(self: Learner, inputs: torch.Tensor, targets: torch.Tensor, lr: float) -> Learnt:
        nonlocal count
        count += 1
        bias = self.model.head.bias.detach()
        good = bias[0].clone()
        if count in steps:
            bias[0] = math.nan
        learnt = learn(self, inputs, targets, lr)
        if count in steps:
            bias[0] = good
        return learnt

    monkeypatch.setattr(Learner, "learn", poisoned_learn)
    return steps


def test_single_steps_that_are_not_finite_are_skipped(
    corpus: Path, small: TrainConfig, tmp_path: Path, poisoned: set[int]
) -> None:
    poisoned |= {4, 5, 7, 8}
    diary = Diary()
    assert Trainer(small, callbacks=[diary]).fit(corpus, out=tmp_path / "run").step == 30
    assert [line["step"] for line in metrics(tmp_path / "run") if line["kind"] == "skipped"] == [4, 5, 7, 8]
    told = "step 4: loss nan and gradient norm nan are not both finite: step not applied"
    assert told in diary.notes


def test_three_in_a_row_end_the_run_and_keep_the_last_good_checkpoint(
    corpus: Path, small: TrainConfig, tmp_path: Path, poisoned: set[int]
) -> None:
    poisoned |= {24, 25, 26}
    with pytest.raises(
        DivergedError, match=r"at step 26: .* 3 steps in a row; .*; the last good .* is step-0000022"
    ):
        Trainer(small).fit(corpus, out=tmp_path / "run")
    run = load_run(tmp_path / "run", "last")
    assert run.step == 22
    assert all(bool(weight.isfinite().all()) for weight in run.model.parameters())


def test_weights_that_are_not_finite_are_never_saved(
    corpus: Path, small: TrainConfig, tmp_path: Path
) -> None:
    config = small.replace(lr=1e3, weight_decay=1e2, warmup_steps=0, schedule="constant", checkpoint_every=1)
    with pytest.raises(
        DivergedError, match=r"training diverged at step \d+: .* start anew with a lower --lr"
    ):
        Trainer(config).fit(corpus, out=tmp_path / "run")
    for name in list_checkpoints(tmp_path / "run/checkpoints"):
        assert all(
            bool(weight.isfinite().all()) for weight in load_run(tmp_path / "run").model.parameters()
        ), name


class Ticking:
    """A clock on which every look takes the same time."""

    def __init__(self, tick_s: float) -> None:
        self.now, self._tick_s = 100.0, tick_s

    def __call__(self) -> float:
        self.now += self._tick_s
        return self.now


def test_minutes_alone_decide_the_steps(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    diary = Diary()
    config = small.replace(max_steps=None, max_minutes=2.0)
    clock = Ticking(0.5)
    result = Trainer(config, callbacks=[diary], clock=clock).fit(corpus, out=tmp_path / "run")
    planned = [int(note.split()[0]) for note in diary.notes if "steps fit into 2 min" in note]
    assert 20 < result.step <= planned[-1]
    assert clock.now - 100.0 < 130.0
    state = json.loads((tmp_path / "run/checkpoints" / f"step-{result.step:07d}" / "state.json").read_text())
    assert state["schedule"]["total_steps"] == planned[-1]


def test_minutes_end_a_run_that_counts_steps(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    config = small.replace(max_steps=10**6, max_minutes=1.0)
    result = Trainer(config, clock=Ticking(1.0)).fit(corpus, out=tmp_path / "run")
    assert 5 < result.step < 60
    assert len(result.sample) == config.sample_chars
    again = Trainer(config, clock=Ticking(1.0)).fit(out=tmp_path / "run", resume=True)
    assert again.step == result.step


def test_without_validation_the_last_is_the_best(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    diary = Diary()
    result = Trainer(small.replace(split="none"), callbacks=[diary]).fit(corpus, out=tmp_path / "run")
    assert (result.best_step, diary.losses) == (None, [])
    run = load_run(tmp_path / "run", "best")
    assert run.step == 30
    assert set(run.tokens) == {"train"}


def test_bytes_train_on_what_is_no_text(small: TrainConfig, tmp_path: Path) -> None:
    path = tmp_path / "noise"
    path.write_bytes(bytes(range(256)) * 8)
    result = Trainer(small.replace(unit="byte")).fit(path, out=tmp_path / "run")
    assert result.step == 30
    assert load_run(tmp_path / "run").vocab.symbols == list(range(256))


def test_a_folder_that_is_no_run_is_named(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot read .*config.json: .* is it a run folder"):
        load_run(tmp_path)
    Trainer(small, callbacks=[Diary(13)]).fit(corpus, out=tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints")
    with pytest.raises(CheckpointError, match=r"cannot read .*state.json"):
        load_run(tmp_path / "run")

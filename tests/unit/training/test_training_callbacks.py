"""Listeners: what they are told, how they stop a run, and what becomes of one that fails."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from charrnn.errors import CallbackError, ConfigError
from charrnn.training import Callback, TrainConfig, Trainer, callbacks, load_run
from charrnn.training.callbacks import Stepped
from charrnn.training.forecast import Facts
from tests.runs import Diary, last_weights

EVENTS = [name for name in vars(Callback) if not name.startswith("_")]


class Recorder(Callback):
    """Every event by name, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def __getattribute__(self, name: str) -> Any:
        if name not in EVENTS:
            return super().__getattribute__(name)
        return _named(name, lambda *told: self.told.append((name, told)))


def _named(name: str, function: Any) -> Any:
    function.__name__ = name
    return function


def test_everything_is_told_in_order(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    recorder = Recorder()
    trainer = Trainer(small.replace(sample_at=(5,)), callbacks=[Callback(), recorder])
    result = trainer.fit(corpus, out=tmp_path / "run")
    names = [name for name, _ in recorder.told if name != "note"]
    assert names[0] == "started"
    assert names[-3:] == ["sampled", "ended", "close"]
    assert names.count("stepped") == 30
    told = {name: [of for each, of in recorder.told if each == name] for name in EVENTS}
    assert [step for step, _ in told["sampled"]] == [5, 30]
    assert [step for step, _ in told["saved"]][-1] == 30
    assert told["saved"][-1][1] == tmp_path / "run/checkpoints/step-0000030"
    assert told["ended"] == [(result,)]
    last: Stepped = told["stepped"][-1][0]
    assert (last.step, last.total_steps, last.is_applied) == (30, 30, True)
    assert last.gradient_norm > 0
    assert 0 < last.lr < small.lr
    first: Facts = told["started"][0][1]
    assert told["started"][0][0] is trainer
    assert (first.step, first.total_steps, first.vocab_size) == (0, 30, len(load_run(tmp_path / "run").vocab))


def test_the_example_of_the_documentation_stops_a_run(
    corpus: Path, small: TrainConfig, tmp_path: Path
) -> None:
    example = (callbacks.__doc__ or "").split("\n\n")
    source = "\n\n".join(example[1:3])
    lines = "\n".join(line.removeprefix("    ") for line in source.splitlines())
    names: dict[str, Any] = {"Callback": Callback}
    exec(lines.replace("2.0", "99.0"), names)
    diary = Diary()
    trainer = Trainer(small, callbacks=[names["Target"](), diary])
    result = trainer.fit(corpus, out=tmp_path / "run")
    assert (result.stopped_by, result.step, result.sample) == ("2 bits per character are enough", 11, "")
    assert load_run(tmp_path / "run", "last").step == 11
    Trainer(small).fit(corpus, out=tmp_path / "whole")
    assert Trainer(small).fit(out=tmp_path / "run", resume=True).step == 30
    assert last_weights(tmp_path / "run") == last_weights(tmp_path / "whole")


def test_to_stop_what_does_not_run_does_nothing(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    trainer = Trainer(small)
    trainer.stop("now")
    assert trainer.fit(corpus, out=tmp_path / "run").stopped_by is None


class Failing(Callback):
    """Fails at step 13; remembers whether it was closed."""

    def __init__(self, error: BaseException) -> None:
        self.error, self.is_closed = error, False

    def stepped(self, stepped: Stepped) -> None:
        if stepped.step == 13:
            raise self.error

    def close(self) -> None:
        self.is_closed = True


def test_a_failure_ends_training_at_the_last_checkpoint(
    corpus: Path, small: TrainConfig, tmp_path: Path
) -> None:
    failing, after = Failing(ValueError("no luck")), Diary()
    match = r"callback Failing.stepped failed with ValueError: no luck; .* go on with --resume"
    with pytest.raises(CallbackError, match=match) as caught:
        Trainer(small, callbacks=[failing, after]).fit(corpus, out=tmp_path / "run")
    assert caught.value.__cause__ is failing.error
    assert failing.is_closed
    assert after.steps[-1] == 12
    assert load_run(tmp_path / "run", "last").step == 11
    Trainer(small).fit(out=tmp_path / "run", resume=True)
    Trainer(small).fit(corpus, out=tmp_path / "whole")
    assert last_weights(tmp_path / "run") == last_weights(tmp_path / "whole")


@pytest.mark.parametrize("error", [ConfigError("of ours"), BrokenPipeError(errno.EPIPE, "closed")])
def test_some_errors_pass_as_they_are(
    error: Exception, corpus: Path, small: TrainConfig, tmp_path: Path
) -> None:
    with pytest.raises(type(error), match=str(error.args[-1])) as caught:
        Trainer(small, callbacks=[Failing(error)]).fit(corpus, out=tmp_path / "run")
    assert caught.value is error


class Sulking(Callback):
    def close(self) -> None:
        raise OSError("disk gone")


def test_closing_may_fail_too(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    other = Failing(ValueError("first"))
    with pytest.raises(CallbackError, match="first"):
        Trainer(small, callbacks=[Sulking(), other]).fit(corpus, out=tmp_path / "run")
    assert other.is_closed
    with pytest.raises(CallbackError, match=r"Sulking.close failed with OSError: disk gone"):
        Trainer(small, callbacks=[Sulking()]).fit(out=tmp_path / "run", resume=True)


def test_only_callbacks_are_callbacks() -> None:
    with pytest.raises(TypeError, match="a callback is of type function: derive it from Callback"):
        Trainer(callbacks=[lambda: None])  # type: ignore[list-item]


def test_the_base_class_does_nothing() -> None:
    silent: Any = Callback()
    for name in EVENTS:
        function = getattr(Callback, name)
        assert getattr(silent, name)(*[None] * (function.__code__.co_argcount - 1)) is None

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from charrnn.errors import CheckpointError, ConfigError
from charrnn.training.files import replacing
from charrnn.training.metrics import MetricsFile
from charrnn.training.run_folder import RunFolder


def test_a_second_trainer_is_told_who_has_the_folder(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path / "run").locked(),
        pytest.raises(ConfigError, match=f"is locked by pid {os.getpid()}: wait"),
        RunFolder(tmp_path / "run").locked(),
    ):
        raise AssertionError("locked twice")
    with RunFolder(tmp_path / "run").locked():
        pass


def test_a_lock_whose_holder_has_died_is_free(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        RunFolder(tmp_path / "run").locked().__enter__()
        os._exit(0)
    os.waitpid(child, 0)
    assert (tmp_path / "run" / ".lock").read_text() == str(child)
    with RunFolder(tmp_path / "run").locked():
        assert (tmp_path / "run" / ".lock").read_text() == str(os.getpid())


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigError, match=r"cannot use .*file as a run folder: File exists"),
        RunFolder(tmp_path / "file").locked(),
    ):
        raise AssertionError


def test_leftovers_are_swept_and_nothing_else(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (folder.checkpoints / ".aside-step-0000001").mkdir(parents=True)
    (folder.checkpoints / "step-0000001").mkdir()
    (tmp_path / ".aside-run.json").write_text("{")
    (tmp_path / "run.json").write_text("{}")
    folder.remove_leftovers()
    assert sorted(os.listdir(tmp_path)) == ["checkpoints", "run.json"]
    assert os.listdir(folder.checkpoints) == ["step-0000001"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def write_and_fail() -> None:
        with replacing(path) as file:
            file.write(b"new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "run.json is damaged"),
        ("[]", "run.json is damaged: it holds no object"),
        ('{"format": "charrnn-run", "version": 2}', "format 'charrnn-run' version 2: this charrnn reads"),
        (None, "cannot read .*run.json: No such file or directory; is it a run folder"),
    ],
)
def test_a_damaged_run_is_named(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        RunFolder(tmp_path).read_info()


def test_damaged_settings_and_vocabularies_are_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.config.write_text('{"lr": "fast"}')
    with pytest.raises(CheckpointError, match=r"config.json is damaged: lr is 'fast'"):
        folder.read_config()
    folder.vocab.write_text('{"unit": "char", "symbols": [97, 97]}')
    with pytest.raises(CheckpointError, match=r"vocab.json is damaged"):
        folder.read_vocab()


def test_metrics_after_a_step_are_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = MetricsFile(path, 0)
    for step in (1, 2, 3):
        first.write("train", step, train_nats=float("nan") if step == 2 else 0.5)
    first.close()
    with open(path, "a") as file:
        file.write('{"kind": "train", "st')
    second = MetricsFile(path, 2)
    second.write("train", 3, train_nats=0.25)
    second.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["step"], line["train_nats"]) for line in lines] == [(1, 0.5), (2, None), (3, 0.25)]

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from charrnn.errors import CheckpointError
from charrnn.training.checkpoint import (
    MODEL,
    OPTIMIZER,
    STATE,
    Checkpoint,
    list_checkpoints,
    load_checkpoint,
    prune,
    save_checkpoint,
)


def checkpoint(value: float = 1.0) -> Checkpoint:
    return Checkpoint(
        {"b": torch.full((3,), value), "a": torch.arange(6.0).reshape(2, 3)},
        {"rng.cpu": torch.arange(5, dtype=torch.uint8), "state.0": torch.zeros(1, 2, 3)},
        {"progress": {"step": 7, "nats_sum": 0.1 + 0.2}, "torch": torch.__version__},
    )


def test_round_trip(tmp_path: Path) -> None:
    name = save_checkpoint(tmp_path, 7, checkpoint())
    found = load_checkpoint(tmp_path / name)
    for ours, theirs in ((checkpoint().weights, found.weights), (checkpoint().tensors, found.tensors)):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert found.state["progress"] == checkpoint().state["progress"]
    assert load_checkpoint(tmp_path / name, weights_only=True).tensors == {}
    assert os.listdir(tmp_path) == [name]


def test_the_same_moment_is_the_same_bytes(tmp_path: Path) -> None:
    first, second = (save_checkpoint(tmp_path / name, 1, checkpoint()) for name in "xy")
    for file in (MODEL, OPTIMIZER, STATE):
        assert (tmp_path / "x" / first / file).read_bytes() == (tmp_path / "y" / second / file).read_bytes()


def test_a_checkpoint_takes_the_place_of_one_of_the_same_step(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, checkpoint(1.0))
    name = save_checkpoint(tmp_path, 1, checkpoint(2.0))
    assert load_checkpoint(tmp_path / name).weights["b"][0] == 2.0


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.data(),
    file=st.sampled_from([MODEL, OPTIMIZER, STATE]),
    kind=st.sampled_from(["flip", "cut", "gone"]),
)
def test_any_damage_is_found(data: st.DataObject, file: str, kind: str, tmp_path: Path) -> None:
    name = save_checkpoint(tmp_path, 1, checkpoint())
    path = tmp_path / name / file
    content = bytearray(path.read_bytes())
    if kind == "gone":
        path.unlink()
    elif kind == "cut":
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 2))])
    else:
        content[data.draw(st.integers(0, len(content) - 2))] ^= data.draw(st.sampled_from([1, 2, 4, 128]))
        path.write_bytes(content)
    if file == STATE and kind == "flip" and _says_the_same(path, checkpoint()):
        return  # white space
    with pytest.raises(CheckpointError, match=file):
        load_checkpoint(path.parent)


def _says_the_same(path: Path, saved: Checkpoint) -> bool:
    try:
        state = load_checkpoint(path.parent).state
    except CheckpointError:
        return False
    return state["progress"] == saved.state["progress"] and state["torch"] == saved.state["torch"]


def test_damage_is_told_with_both_hashes(tmp_path: Path) -> None:
    name = save_checkpoint(tmp_path, 1, checkpoint())
    path = tmp_path / name / MODEL
    path.write_bytes(b"\0" + path.read_bytes()[1:])
    with pytest.raises(
        CheckpointError, match=rf"{MODEL} is damaged: expected sha256 [0-9a-f]{{64}}, found [0-9a-f]{{64}}"
    ):
        load_checkpoint(path.parent)


def test_a_disk_that_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = save_checkpoint(tmp_path, 1, checkpoint())

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        CheckpointError, match=r"cannot save checkpoint .*step-0000002 of 65 bytes: No space left"
    ):
        save_checkpoint(tmp_path, 2, checkpoint())
    assert os.listdir(tmp_path) == [name]
    assert load_checkpoint(tmp_path / name).weights["b"][0] == 1.0
    with pytest.raises(CheckpointError, match="earlier checkpoints are untouched: make room and continue"):
        save_checkpoint(tmp_path, 2, checkpoint())
    with pytest.raises(CheckpointError, match="there is no earlier checkpoint: make room and begin anew"):
        save_checkpoint(tmp_path / "other", 2, checkpoint())


def test_files_reach_the_disk_before_they_get_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, rename = os.fsync, os.rename

    def note_fsync(descriptor: int) -> None:
        calls.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def note_rename(source: Path, target: Path) -> None:
        calls.append(f"rename {os.path.basename(target)}")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "rename", note_rename)
    save_checkpoint(tmp_path / "checkpoints", 3, checkpoint())
    at = calls.index("rename step-0000003")
    assert {MODEL, OPTIMIZER, STATE, ".aside-step-0000003"} <= set(calls[:at])
    assert calls[at + 1 :] == ["checkpoints"]


def test_only_what_is_named_is_kept_newest_first(tmp_path: Path) -> None:
    for step in (5, 10_000_000, 900):
        save_checkpoint(tmp_path, step, checkpoint())
    (tmp_path / "notes").mkdir()
    assert list_checkpoints(tmp_path) == ["step-10000000", "step-0000900", "step-0000005"]
    prune(tmp_path, {"step-0000900"})
    assert list_checkpoints(tmp_path) == ["step-0000900"]
    assert (tmp_path / "notes").is_dir()
    assert list_checkpoints(tmp_path / "nowhere") == []

"""A folder is there whole or not at all, whatever fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from charrnn.export import folder

NEW = {"a": b"new a", "b": b"new b"}


def contents(path: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in path.iterdir()}


def fail_at(monkeypatch: pytest.MonkeyPatch, name: str, call: int) -> None:
    """Make the given call, counted from 1, of an ``os`` function fail as on a full disk."""
    real, calls = getattr(os, name), iter(range(1, 1000))

    def failing(*args: object, **kwargs: object) -> object:
        if next(calls) == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args, **kwargs)

    monkeypatch.setattr(os, name, failing)


def test_written_with_missing_parents(tmp_path: Path) -> None:
    folder.write_folder(tmp_path / "x" / "y", NEW, replace=False)
    assert contents(tmp_path / "x" / "y") == NEW
    assert [entry.name for entry in (tmp_path / "x").iterdir()] == ["y"]


def test_an_existing_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError):
        folder.write_folder(tmp_path / "out", NEW, replace=False)
    assert os.listdir(tmp_path) == ["out"]
    assert contents(tmp_path / "out") == {}


def test_replaced_as_a_whole(tmp_path: Path) -> None:
    folder.write_folder(tmp_path / "out", {"old": b"1"}, replace=False)
    folder.write_folder(tmp_path / "out", NEW, replace=True)
    assert contents(tmp_path / "out") == NEW
    assert os.listdir(tmp_path) == ["out"]


def test_a_link_keeps_pointing_at_the_folder(tmp_path: Path) -> None:
    folder.write_folder(tmp_path / "real", {"old": b"1"}, replace=False)
    (tmp_path / "link").symlink_to("real")
    folder.write_folder(tmp_path / "link", NEW, replace=True)
    assert (tmp_path / "link").is_symlink()
    assert contents(tmp_path / "real") == NEW


@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    fail_at(monkeypatch, "fsync", call)
    with pytest.raises(OSError, match="No space left"):
        folder.write_folder(tmp_path / "out", NEW, replace=False)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("name", "call"), [("fsync", 1), ("fsync", 3), ("rename", 1), ("rename", 2)])
def test_a_failed_replacement_leaves_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, call: int
) -> None:
    folder.write_folder(tmp_path / "out", {"old": b"1"}, replace=False)
    fail_at(monkeypatch, name, call)
    with pytest.raises(OSError, match="No space left"):
        folder.write_folder(tmp_path / "out", NEW, replace=True)
    assert os.listdir(tmp_path) == ["out"]
    assert contents(tmp_path / "out") == {"old": b"1"}


def test_everything_is_on_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(descriptor: int) -> None:
        events.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        real_fsync(descriptor)

    def rename(source: Path, target: Path) -> None:
        events.append(f"-> {Path(target).name}")
        real_rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    folder.write_folder(tmp_path / "out", NEW, replace=False)
    staging = events.pop(2)
    assert staging.startswith(".out.")
    assert events == ["a", "b", "-> out", tmp_path.name]

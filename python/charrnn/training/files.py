"""Writing files and folders so that a reader, or a crash at any moment, sees the old one or the new one.

Write aside, flush to disk, rename, flush the parent folder. Knows nothing of what is written.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

# Marks what a crash may leave behind; whoever holds the run's lock may delete it.
ASIDE = ".aside-"


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of ``path`` when the block ends well, and vanishes when it does not."""
    aside = path.with_name(f"{ASIDE}{path.name}")
    try:
        with open(aside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which becomes ``path`` when the block ends well. What stood there is replaced.

    The folder it is in is made if need be, but not those above: where they have gone, so has the whole.
    """
    aside = path.with_name(f"{ASIDE}{path.name}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        path.parent.mkdir(exist_ok=True)
        aside.mkdir()
        yield aside
        for file in aside.iterdir():
            sync_file(file)
        sync_folder(aside)
        shutil.rmtree(path, ignore_errors=True)
        os.rename(aside, path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Flush a file to disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Flush a folder's list of names to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Delete what a crash left half written in ``folder``."""
    for path in folder.glob(f"{ASIDE}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON in one piece."""
    with replacing(path) as file:
        # A path that is not UTF-8 has lone surrogates; so written they are the escapes of JSON.
        file.write(json.dumps(value, indent=1, ensure_ascii=False).encode(errors="backslashreplace") + b"\n")


def sha256_file(path: Path) -> str:
    """The hash of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """The hash of a JSON value, whatever its layout and the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with its own hash in it, by which damage is found."""
    return {**value, "sha256": sha256_json(value)}


def unsealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Undoes ``sealed``.

    Raises:
        KeyError: it was never sealed.
        ValueError: it is not as it was sealed.
    """
    content = dict(value)
    named, found = content.pop("sha256"), sha256_json(content)
    if named != found:
        raise ValueError(f"its content has sha256 {found}, but it names {named}")
    return content

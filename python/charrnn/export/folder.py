"""Writing a whole folder at once: aside in the same parent, synced, then renamed into place.

Knows file names and bytes only. A reader sees the old folder, the new one, or for the moment between two
renames of a replacement none, but never half of one.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path


def write_folder(target: Path, files: Mapping[str, bytes], *, replace: bool) -> None:
    """Write ``files`` into a new folder ``target``, replacing a folder of that name if ``replace``.

    Whatever goes wrong, nothing half written stays, and a folder that was to be replaced is put back.

    Raises:
        OSError: it could not be written; FileExistsError: it exists and ``replace`` is not set.
    """
    target = Path(os.path.realpath(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.parent / f".{target.name}.{secrets.token_hex(4)}.partial"
    staging.mkdir()
    try:
        for name, content in files.items():
            _write_synced(staging / name, content)
        _sync_folder(staging)
        _move_into_place(staging, target, replace=replace)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _move_into_place(staging: Path, target: Path, *, replace: bool) -> None:
    if not target.exists():
        os.rename(staging, target)
        _sync_folder(target.parent)
        return
    if not replace:
        raise FileExistsError(f"{target} exists already")
    old = staging.with_suffix(".old")
    os.rename(target, old)
    try:
        os.rename(staging, target)
    except BaseException:
        os.rename(old, target)
        raise
    _sync_folder(target.parent)
    shutil.rmtree(old)


def _write_synced(path: Path, content: bytes) -> None:
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

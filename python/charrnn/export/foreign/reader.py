"""Named arrays of a file or a folder: npz, safetensors, or raw little-endian float32 with a manifest.json.

Knows kinds of files and that every number is a finite float32, nothing of what the arrays mean. Nothing is
unpickled, nothing outside the folder is read, and sizes are checked before anything is held in memory.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from charrnn.errors import DataError
from charrnn.export.weights import Array

MAX_BYTES = 2 << 30
"""Of all arrays together: an ONNX file ends there."""

MANIFEST = "manifest.json"


def read_arrays(path: Path) -> dict[str, Array]:
    """Every array of ``path``, float32 and finite.

    Raises:
        DataError: it is of no known kind, damaged or too large, or an array is not float32 or not finite.
    """
    read = _reader_of(path)
    try:
        arrays = dict(read(path))
    except OSError as error:
        raise DataError(f"{error.filename or path} cannot be read: {error.strerror or error}") from error
    if not arrays:
        raise DataError(f"{path} holds no arrays")
    for name, array in arrays.items():
        _check(name, array)
    return arrays


def _reader_of(path: Path) -> Callable[[Path], Iterator[tuple[str, Any]]]:
    if path.is_dir():
        return _read_folder
    if path.suffix in _READERS:
        return _READERS[path.suffix]
    if not path.exists():
        raise DataError(f"{path} does not exist: give the file or the folder of the weights")
    known = ", ".join(_READERS)
    raise DataError(f"{path} is neither a folder of raw float32 files nor a file of {known}")


def _check(name: str, array: Any) -> None:
    kind = getattr(array, "dtype", "bytes")  # an npz file may hold other files
    if kind != np.float32:
        raise DataError(f"weight {name} is of type {kind}, expected float32; convert it first")
    if num_bad := int(np.count_nonzero(~np.isfinite(array))):
        raise DataError(f"weight {name} is not finite in {num_bad} of {array.size} places")


def _check_size(path: Path, num_bytes: int) -> None:
    if num_bytes > MAX_BYTES:
        raise DataError(f"{path} holds {num_bytes:,} bytes of weights, the limit is {MAX_BYTES:,}")


def _read_npz(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            _check_size(path, sum(entry.file_size for entry in archive.infolist()))
        with np.load(path, allow_pickle=False) as arrays:
            yield from ((name, arrays[name]) for name in arrays.files)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, ValueError, EOFError, NotImplementedError) as error:
        raise DataError(f"{path} is not an npz file of plain arrays: {_line(error)}") from error


def _read_safetensors(path: Path) -> Iterator[tuple[str, Any]]:
    _check_size(path, path.stat().st_size)
    try:
        with safe_open(path, framework="numpy") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                if (kind := tensors.get_slice(name).get_dtype()) != "F32":  # numpy has not all of them
                    raise DataError(f"weight {name} is of type {kind}, expected F32; convert it first")
                yield name, tensors.get_tensor(name)
    except SafetensorError as error:
        raise DataError(f"{path} is not a safetensors file: {_line(error)}") from error


def _read_folder(path: Path) -> Iterator[tuple[str, Any]]:
    entries = _manifest(path / MANIFEST)
    _check_size(path, sum(4 * math.prod(shape) for _, shape in entries.values()))
    for name, (file, shape) in entries.items():
        found, expected = (path / file).stat().st_size, 4 * math.prod(shape)
        if found != expected:
            raise DataError(
                f"{path / file} has {found:,} bytes, but shape {list(shape)} of float32 has {expected:,}"
            )
        yield name, np.fromfile(path / file, "<f4").astype(np.float32).reshape(shape)


def _manifest(path: Path) -> Mapping[str, tuple[str, tuple[int, ...]]]:
    """``{"name": {"filename": F, "shape": [N, ...]}}``."""
    try:
        manifest = json.loads(path.read_bytes())
        entries = {name: (entry["filename"], tuple(entry["shape"])) for name, entry in manifest.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} does not name a filename and a shape for each array") from error
    for name, (file, shape) in entries.items():
        if not isinstance(file, str) or not file or Path(file).name != file or file == "..":
            raise DataError(f"{path}: filename {file!r} of {name} is not a plain name inside the folder")
        if not all(type(size) is int and 0 < size <= MAX_BYTES for size in shape):
            raise DataError(f"{path}: shape {list(shape)} of {name} is not a list of positive whole numbers")
    return entries


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


_READERS = {".npz": _read_npz, ".safetensors": _read_safetensors}

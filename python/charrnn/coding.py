"""Arithmetic coding with a model: texts in as many bits as the model needs for them, and back without a loss.

The coder works on the integer weights that the sampler draws from. Knows nothing of how models compute: both
sides must hand it the same logits, bit for bit.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from charrnn import _native
from charrnn._native import ArithmeticDecoder, ArithmeticEncoder
from charrnn.engine import find_onnxruntime
from charrnn.errors import DataError
from charrnn.sampler import refusing_overflow

__all__ = ["ArithmeticDecoder", "ArithmeticEncoder", "FileReport", "compress", "decompress", "measure"]

StrPath = str | os.PathLike[str]
OnProgress = Callable[[int], object]


@dataclass(frozen=True)
class FileReport:
    """What became of a file.

    ``num_symbols`` are characters, or bytes for a model over bytes; the model could not code ``num_escaped``
    of them. ``num_compressed`` bytes are the compressed file, ``num_coded`` of them without its header.
    """

    num_bytes: int
    num_symbols: int
    num_escaped: int
    num_compressed: int
    num_coded: int

    @property
    def bpc(self) -> float:
        """Coded bits per symbol; 0 for an empty file."""
        return 8 * self.num_coded / self.num_symbols if self.num_symbols else 0.0


def compress(
    source: StrPath,
    target: StrPath,
    bundle: StrPath,
    *,
    precision: str | None = None,
    workers: int | None = None,
    force: bool = False,
    on_progress: OnProgress = lambda num_bytes: None,
) -> FileReport:
    """Compress the file ``source`` into ``target`` with an exported model, in constant memory.

    Args:
        precision: which of the bundle's graphs; None takes int8 if there is one.
        workers: threads; None takes one a core. What is written does not depend on it.
        force: replace ``target``.
        on_progress: told now and then how many bytes of ``source`` are done.

    Raises:
        DataError: a file cannot be read, twice, or written, or ``target`` is there already or is no file.
        BundleError: the model.
    """
    with _written_aside(target, force=force) as aside, refusing_overflow():
        counts = _native.compress(
            source=_readable_twice(source),
            target=aside,
            bundle=bundle,
            onnxruntime=find_onnxruntime(),
            precision=precision,
            workers=workers,
            on_progress=on_progress,
        )
    return FileReport(*counts)


def decompress(
    source: StrPath,
    target: StrPath,
    bundle: StrPath,
    *,
    workers: int | None = None,
    force: bool = False,
    on_progress: OnProgress = lambda num_bytes: None,
) -> FileReport:
    """Restore into ``target`` the file that ``source`` was compressed from, with the same bundle.

    Raises:
        DataError: ``source`` is damaged, foreign or of another model; nothing is written then.
    """
    with _written_aside(target, force=force) as aside, refusing_overflow():
        counts = _native.decompress(
            source=_readable_twice(source),
            target=aside,
            bundle=bundle,
            onnxruntime=find_onnxruntime(),
            workers=workers,
            on_progress=on_progress,
        )
    return FileReport(*counts)


def measure(
    source: StrPath,
    bundle: StrPath,
    *,
    precision: str | None = None,
    workers: int | None = None,
    on_progress: OnProgress = lambda num_bytes: None,
) -> tuple[float, FileReport]:
    """Bits of information that a file has for an exported model, without coding it; and its counts.

    Raises:
        DataError: the file cannot be read.
    """
    with refusing_overflow():
        bits, counts = _native.measure(
            source=_readable_twice(source),
            bundle=bundle,
            onnxruntime=find_onnxruntime(),
            precision=precision,
            workers=workers,
            on_progress=on_progress,
        )
    return bits, FileReport(*counts)


@contextmanager
def _written_aside(target: StrPath, *, force: bool) -> Iterator[Path]:
    """A file beside ``target`` that becomes it once it is complete and on the disk."""
    path, place = Path(target), _place(target, force=force)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{place.name}.", suffix=".partial", dir=place.parent)
        os.close(handle)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from error
    aside = Path(name)
    try:
        yield aside
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.chmod(0o666 & ~_umask())
        aside.replace(place)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from error
    except DataError as error:
        raise DataError(str(error).replace(str(aside), str(path))) from error
    finally:
        aside.unlink(missing_ok=True)


def _place(target: StrPath, *, force: bool) -> Path:
    """Where ``target`` leads: a link stays and what it names is written."""
    place = Path(os.path.realpath(target))
    if os.path.exists(target) or os.path.lexists(place):  # a pipe of /dev/stdout has no place of its own
        if not os.path.isfile(target):
            raise DataError(f"{os.fspath(target)} is not a regular file: give a file's name")
        if not force:
            raise DataError(f"{os.fspath(target)} exists; choose another name or force it (--force)")
    return place


def _readable_twice(source: StrPath) -> StrPath:
    """``source``, if its checksum can be taken before it is coded; what is not there is told later."""
    name = os.fspath(source)
    is_pipe = os.path.exists(name) and not os.path.isfile(name) and not os.path.isdir(name)
    if is_pipe or (name == "-" and not os.path.exists(name)):
        raise DataError(f"{name} is not a file that can be read twice, which is needed: give a file's name")
    return source


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

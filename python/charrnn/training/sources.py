"""Where a text comes from: files, folders, patterns, stdin or what Python carries, as one row of bytes.

Several files are joined in order with nothing between them. Knows neither symbols nor runs.
"""

from __future__ import annotations

import glob
import os
import shutil
import stat
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from charrnn.data.folder import find_fetched
from charrnn.errors import DataError
from charrnn.training.files import replacing

TOPICS, STDLIB, STDIN = "pydoc-topics", "python-stdlib", "-"
BUILT_IN = (TOPICS, STDLIB)
"""Corpora that come with Python. ``pydoc-topics`` is the default."""
PREFIX = "data:"
"""What makes a word the name of a corpus, whatever files there are."""

PIECE_BYTES = 1 << 20
# Of a standard library, what is somebody else's, data of tests, or was not written as source.
_NOT_STDLIB = {"__pycache__", "site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3"}

Words = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class Part(Protocol):
    """One file of a text."""

    @property
    def name(self) -> str:
        """How messages call it."""

    def pieces(self) -> Iterator[bytes]:
        """Its bytes, at most 1 MiB at a time."""


@dataclass(frozen=True)
class File:
    """A part that lies on the disk."""

    path: Path

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    def pieces(self) -> Iterator[bytes]:
        """Its bytes, 1 MiB at a time.

        Raises:
            DataError: it cannot be read.
        """
        try:
            with open(self.path, "rb") as file:
                while piece := file.read(PIECE_BYTES):
                    yield piece
        except OSError as error:
            raise DataError(f"cannot read corpus {self.path}: {error.strerror}") from error


@dataclass(frozen=True)
class Topics:
    """The help topics of Python's own documentation, about 0.5 MB."""

    name: str = TOPICS

    def pieces(self) -> Iterator[bytes]:
        """All of them in order of their names.

        Raises:
            DataError: this Python does not carry them.
        """
        try:
            from pydoc_data.topics import topics
        except ImportError:
            raise DataError(
                "the built-in corpus is pydoc_data, which this Python lacks: give a text file"
            ) from None
        yield "".join(topics[name] for name in sorted(topics)).encode()


@dataclass(frozen=True)
class Source:
    """A text: its parts in order, and the words by which it is found again."""

    name: str
    words: tuple[str, ...]
    parts: tuple[Part, ...]

    def pieces(self) -> Iterator[bytes]:
        """The bytes of all parts."""
        for part in self.parts:
            yield from part.pieces()

    def empty_files(self) -> list[str]:
        """Names of the files that have no bytes."""
        files = (part.path for part in self.parts if isinstance(part, File))
        return [str(path) for path in files if path.stat().st_size == 0]


def as_words(corpus: Words | None) -> tuple[str, ...]:
    """What was given for a corpus as a row of words; none is the built-in corpus.

    Raises:
        DataError: an empty list, or stdin twice.
    """
    if corpus is None:
        return (TOPICS,)
    given = [corpus] if isinstance(corpus, str | os.PathLike) else corpus
    words = tuple(os.fspath(word) for word in given)
    if not words:
        raise DataError("an empty list of files was given as corpus: name at least one file, or give None")
    if words.count(STDIN) > 1:
        raise DataError("stdin (-) stands twice in the corpus: it can be read once")
    return words


def find_source(corpus: Words | None, *, spool: Path | None = None, leave_out: Path | None = None) -> Source:
    """The text that ``corpus`` names. Nothing of it is read but stdin.

    Args:
        corpus: one or several of a file, a folder (all files below it in the order of their paths' bytes,
            without hidden ones, sockets and pipes; a folder reached twice by links is read once), a pattern
            of ``*``, ``?``, ``[...]`` and ``**``, ``-`` for stdin, ``data:NAME`` for a corpus that
            ``charrnn data get`` fetched, or the name of a built-in corpus. None is ``pydoc-topics``.
        spool: where stdin is kept, as a text is read twice; if it is there already, stdin is not read.
        leave_out: a folder whose files are no part of the text even if it lies in a folder of it.

    Raises:
        DataError: a word names nothing, or nothing that can be read.
    """
    words = as_words(corpus)
    lost = leave_out.resolve() if leave_out is not None and leave_out.exists() else None
    parts = tuple(part for word in words for part in _parts(word, spool, lost))
    return Source(_name(words), tuple(map(_lasting, words)), parts)


def _parts(word: str, spool: Path | None, leave_out: Path | None) -> Sequence[Part]:
    if word == STDIN:
        return [File(_spooled(spool))]
    if word.startswith(PREFIX):
        return _called(word.removeprefix(PREFIX))
    path = Path(word)
    if path.is_dir():
        return [File(found) for found in _below(path, leave_out)]
    if path.exists() or path.is_symlink():
        return [File(_regular(path))]
    if word in BUILT_IN:
        return _called(word)
    return [File(found) for found in _matches(word, leave_out)]


def _called(name: str) -> Sequence[Part]:
    if name == TOPICS:
        return [Topics()]
    if name == STDLIB:
        return [File(found) for found in _stdlib()]
    return [File(find_fetched(name))]


def _below(folder: Path, leave_out: Path | None) -> list[Path]:
    found = [
        path
        for path in _walk(folder, lambda name: not name.startswith("."), leave_out)
        if path.is_symlink() or path.is_file()
    ]
    if not found:
        raise DataError(f"folder {folder} holds no files (hidden ones do not count): name another corpus")
    return [_regular(path) for path in found if not _is_special(path)]


def _walk(folder: Path, is_wanted: Callable[[str], bool], leave_out: Path | None = None) -> list[Path]:
    """All files below, in the order of their paths' bytes; folders that links reach twice only once."""
    seen: set[tuple[int, int]] = set()
    files: list[Path] = []
    for place, folders, names in os.walk(folder, followlinks=True, onerror=_refuse_folder):
        status = os.stat(place)
        is_left_out = leave_out is not None and Path(place).resolve() == leave_out
        if (status.st_dev, status.st_ino) in seen or is_left_out:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(filter(is_wanted, folders), key=os.fsencode)
        files += [Path(place, name) for name in names if is_wanted(name)]
    return sorted(files, key=os.fsencode)


def _refuse_folder(error: OSError) -> None:
    raise DataError(f"cannot read corpus {error.filename}: {error.strerror}") from error


def _stdlib() -> list[Path]:
    folder = Path(sysconfig.get_path("stdlib"))
    files = [path for path in _walk(folder, lambda name: name not in _NOT_STDLIB) if path.suffix == ".py"]
    if not files:
        raise DataError(f"{STDLIB} is the source of Python's library, which {folder} lacks: give a text file")
    return files


def _matches(pattern: str, leave_out: Path | None) -> list[Path]:
    if not glob.has_magic(pattern):
        raise DataError(f"cannot read corpus {pattern}: No such file or directory")
    found = sorted(_glob(Path(pattern)), key=os.fsencode)
    files = [path for path in found if not path.is_dir() and not _is_special(path)]
    if leave_out is not None:
        files = [path for path in files if leave_out not in path.resolve().parents]
    if not files:
        raise DataError(f"no file matches {pattern}: see that it is quoted and spelt as the files are")
    return files


def _glob(pattern: Path) -> Iterator[Path]:
    """Paths that match; ``**`` goes through no links, and hidden names match only as they are written."""
    start = Path(pattern.anchor)
    rest = pattern.relative_to(start) if pattern.anchor else pattern
    below = rest / "*" if rest.name == "**" else rest
    for path in start.glob(str(below)):
        if all(name in pattern.parts or not name.startswith(".") for name in path.parts):
            yield path


def _is_special(path: Path) -> bool:
    """Whether it is a socket, a pipe or a device; what cannot be looked at is told when it is read."""
    return path.exists() and not path.is_file()


def _regular(path: Path) -> Path:
    """The path, if it is of a file that can be read twice."""
    try:
        is_regular = stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        raise DataError(f"cannot read corpus {path}: {error.strerror}") from error
    if not is_regular:
        raise DataError(f"corpus {path} is no file, and a text is read twice: pipe it in, and give - for it")
    return path


def _spooled(spool: Path | None) -> Path:
    """The copy of stdin, which is made if it is not there."""
    if spool is None:
        raise DataError("stdin (-) cannot be read twice: save it in a file and name that")
    if not spool.exists():
        if sys.stdin is None or sys.stdin.closed:
            raise DataError("stdin is closed: pipe the text in, or name a file")
        with replacing(spool) as file:
            shutil.copyfileobj(sys.stdin.buffer, file, PIECE_BYTES)
    return spool


def _name(words: tuple[str, ...]) -> str:
    """How a text is called: short, for people."""
    first = "stdin" if words[0] == STDIN else os.path.basename(words[0].rstrip("/")) or words[0]
    return first if len(words) == 1 else f"{first} and {len(words) - 1} more"


def _lasting(word: str) -> str:
    """The word as it is understood from everywhere."""
    is_name = word == STDIN or word.startswith(PREFIX) or (word in BUILT_IN and not os.path.exists(word))
    return word if is_name else os.path.abspath(word)

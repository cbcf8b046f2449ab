"""A corpus from its address to a file: resumed where it broke off, and checked before it is there.

Knows nothing of what is in it.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from charrnn.data.catalogue import Corpus, Expected
from charrnn.errors import DataError

Progress = Callable[[int, int | None], None]
"""Told the bytes that are here and those there will be."""

PIECE_BYTES = 1 << 18
TIMEOUT_S = 30.0
# In a row without a byte between them.
MAX_FAILURES = 3

_BY_HAND = "take the text from elsewhere and give charrnn the file"


def download(
    corpus: Corpus, path: Path, *, progress: Progress | None = None, timeout_s: float = TIMEOUT_S
) -> str:
    """Fetch a corpus into the file ``path``; returns the sha256 of the text.

    What is here already of an earlier try, in ``path`` with ``.partial`` behind it, is not fetched again
    where a hash can tell whether it fits. Nothing stands at ``path`` before all of it is there and checked.

    Raises:
        DataError: the address cannot be reached or refuses, what it serves is not what is expected, or the
            disk does not take it. What was fetched is kept, unless it is wrong.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        _fetch_all(corpus, partial, progress or (lambda here, total: None), timeout_s)
        _check(partial, corpus.expected, corpus.url)
        if corpus.member is not None:
            _extract(corpus, partial, path)
            partial.unlink()
        else:
            os.replace(partial, path)
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror or error}; make room or give another --out"
        ) from error
    return _sha256(path)


def _fetch_all(corpus: Corpus, partial: Path, progress: Progress, timeout_s: float) -> None:
    if not corpus.expected.is_known:
        partial.unlink(missing_ok=True)  # nothing could tell whether old and new fit together
    num_failures = 0
    while True:
        before = _size(partial)
        try:
            return _fetch(corpus, partial, progress, timeout_s)
        except (http.client.HTTPException, ConnectionError, TimeoutError, _CutError) as error:
            num_failures = 0 if _size(partial) > before else num_failures + 1
            if num_failures == MAX_FAILURES:
                raise DataError(
                    f"{corpus.url} broke off {num_failures} times ({error}): {_size(partial):,} bytes "
                    f"are kept in {partial}; the same command goes on from there"
                ) from error


class _CutError(Exception):
    """The connection ended before the file did."""


def _fetch(corpus: Corpus, partial: Path, progress: Progress, timeout_s: float) -> None:
    """One connection: what is missing, or all of it where the server gives no part."""
    here = _size(partial)
    if here and here == corpus.expected.num_bytes:
        return
    with _ask(corpus, here, timeout_s) as answer:
        if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            if not _differences(partial, corpus.expected):
                return
            partial.unlink()
            raise _CutError("what was here was no part of it")
        is_rest = answer.status == HTTPStatus.PARTIAL_CONTENT
        here = here if is_rest else 0
        length = answer.headers.get("Content-Length")
        total = here + int(length) if length else None
        with open(partial, "ab" if is_rest else "wb") as file:
            while piece := answer.read(PIECE_BYTES):
                file.write(piece)
                here += len(piece)
                progress(here, total)
    if total is not None and here < total:
        raise _CutError(f"{here:,} of {total:,} bytes came")


def _ask(corpus: Corpus, here: int, timeout_s: float) -> Any:
    headers = {"User-Agent": "charrnn", **({"Range": f"bytes={here}-"} if here else {})}
    try:
        return urllib.request.urlopen(urllib.request.Request(corpus.url, headers=headers), timeout=timeout_s)
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and here:
            return error
        error.close()
        raise DataError(f"{corpus.url} answers {error.code} {error.reason}: {_BY_HAND}") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ConnectionResetError | TimeoutError):
            raise _CutError(str(error.reason)) from error
        host = urlsplit(corpus.url).netloc
        raise DataError(
            f"cannot reach {host} ({error.reason}): go online and try again, or {_BY_HAND}"
        ) from error


def _check(path: Path, expected: Expected, what: str) -> None:
    """Delete what is wrong.

    Raises:
        DataError: says what is expected and what was found.
    """
    if wrong := _differences(path, expected):
        path.unlink()
        raise DataError(f"{what} is not what it was: {wrong}; it was deleted, {_BY_HAND}")


def _differences(path: Path, expected: Expected) -> str:
    size = _size(path)
    if expected.num_bytes not in (None, size):
        return f"{expected.num_bytes:,} bytes were expected, {size:,} came"
    if expected.sha256 not in (None, found := _sha256(path)):
        return f"sha256 {expected.sha256} was expected, {found} came"
    if expected.git_sha1 and expected.git_sha1 != (found := _digest(path, hashlib.sha1(b"blob %d\0" % size))):
        return f"git blob {expected.git_sha1} was expected, {found} came"
    return ""


def _extract(corpus: Corpus, archive: Path, path: Path) -> None:
    """Take the wanted file out of a zip archive that has been checked."""
    assert corpus.member is not None
    aside = path.with_name(path.name + ".extracted")
    try:
        with (
            zipfile.ZipFile(archive) as opened,
            opened.open(corpus.member.name) as member,
            open(aside, "wb") as file,
        ):
            shutil.copyfileobj(member, file, PIECE_BYTES)
        _check(aside, corpus.member.expected, f"{corpus.member.name} in {corpus.url}")
        os.replace(aside, path)
    except (zipfile.BadZipFile, KeyError) as error:
        archive.unlink()
        raise DataError(f"{corpus.url} is no zip archive with {corpus.member.name}: {_BY_HAND}") from error
    finally:
        aside.unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path) -> str:
    return _digest(path, hashlib.sha256())


def _digest(path: Path, digest: Any) -> str:
    with open(path, "rb") as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
    return str(digest.hexdigest())

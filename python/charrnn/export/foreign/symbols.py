"""A vocabulary that somebody else wrote: read, mended where a user says how, refused where it is damaged.

Knows nothing of weights but how many symbols they have.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from charrnn.errors import DataError, RequestError
from charrnn.vocab import Vocab

_MAX_BYTES = 8 << 20
_MAX_TOLD = 8

Pairs = list[tuple[str, int]]


def read_vocab(path: Path, vocab_size: int, mended: Mapping[int, str]) -> Vocab:
    """The symbols of ``vocab_size`` ids, from a JSON map of characters to ids, or a list of characters.

    A run's own ``vocab.json``, which may be of bytes, does too.

    Args:
        mended: what single ids mean, whatever the file says of them.

    Raises:
        DataError: the file cannot be read, or ids are left without one character each; all are named.
    """
    value = _read(path)
    if isinstance(value, _Object) and {key for key, _ in value.pairs} == {"unit", "symbols"} and not mended:
        vocab = _own(path, dict(value.pairs))
        if len(vocab) != vocab_size:
            raise DataError(f"{path} has {len(vocab)} symbols, but the output layer has {vocab_size}")
        return vocab
    symbols: dict[int, list[str]] = {token: [] for token in range(vocab_size)}
    for key, token in _pairs(path, value):
        if type(token) is not int or token not in symbols:
            raise DataError(f"{path}: id {token!r} of {key!r} is not one of 0 to {vocab_size - 1}")
        symbols[token].append(key)
    for token, key in mended.items():
        if token not in symbols:
            raise DataError(f"symbol {token}={key}: the id is not one of 0 to {vocab_size - 1}")
        symbols[token] = [key]
    if problems := list(_problems(symbols)):
        told, rest = problems[:_MAX_TOLD], len(problems) - _MAX_TOLD
        raise DataError(
            f"{path} is damaged: {'; '.join(told)}{f'; and {rest} more' if rest > 0 else ''}; "
            "say what an id means with --symbol ID=CHAR, or mend the file and give it with --vocab"
        )
    return Vocab([ord(symbols[token][0]) for token in range(vocab_size)])


class _Object:
    """A JSON object with all its pairs, of which a key may have several."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self.pairs = pairs


def _read(path: Path) -> Any:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"vocabulary {path} has more than {_MAX_BYTES:,} bytes")
        return json.loads(path.read_bytes(), object_pairs_hook=_Object)
    except OSError as error:
        raise DataError(
            f"vocabulary {path} cannot be read: {error.strerror}; name one with --vocab"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"vocabulary {path} is not JSON: {error}") from error


def _own(path: Path, value: dict[str, Any]) -> Vocab:
    try:
        return Vocab.from_json(value)
    except (RequestError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"vocabulary {path}: {error}") from error


def _pairs(path: Path, value: Any) -> Pairs:
    if isinstance(value, _Object):
        return value.pairs
    if isinstance(value, list) and all(isinstance(key, str) for key in value):
        return [(key, token) for token, key in enumerate(value)]
    raise DataError(f"vocabulary {path} is neither a map of characters to ids nor a list of characters")


def _problems(symbols: Mapping[int, list[str]]) -> Iterator[str]:
    """What is wrong with the map, an id at a time."""
    ids_of: dict[str, list[int]] = {}
    for token, keys in symbols.items():
        for key in keys:
            ids_of.setdefault(key, []).append(token)
        if not keys:
            yield f"id {token} has no character"
        elif len(keys) > 1:
            yield f"id {token} is {_list(map(repr, keys))}"
        elif len(keys[0]) != 1 or "\ud800" <= keys[0] <= "\udfff":
            shown = repr(keys[0]).replace(" ", r"\x20")  # a line of errors keeps no runs of spaces
            yield f"id {token} is {shown}, which is not one character"
    for key, tokens in ids_of.items():
        if len(tokens) > 1:
            yield f"{key!r} is {_list(f'id {token}' for token in tokens)}"


def _list(words: Iterable[str]) -> str:
    return " and ".join(words)

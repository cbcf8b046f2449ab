"""What is known of public corpora. Knows no network."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from charrnn.errors import DataError


@dataclass(frozen=True)
class Expected:
    """What a file must be, as far as it is known. ``git_sha1`` is that of its git blob."""

    num_bytes: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None

    @property
    def is_known(self) -> bool:
        """Whether there is a hash to hold a file against."""
        return bool(self.sha256 or self.git_sha1)


@dataclass(frozen=True)
class Member:
    """The file that is wanted of an archive."""

    name: str
    expected: Expected = field(default_factory=Expected)


@dataclass(frozen=True)
class Corpus:
    """A text at a public address; ``expected`` is of what the address serves. ``preset`` suits it."""

    name: str
    about: str
    url: str
    licence: str
    expected: Expected
    member: Member | None = None
    preset: str = "quick"

    @property
    def num_bytes(self) -> int | None:
        """Of the text itself, if it is known."""
        return (self.member.expected if self.member else self.expected).num_bytes


def read_catalogue(path: Path | None = None) -> dict[str, Corpus]:
    """All corpora by name: charrnn's own, or those of a file of the same form.

    Raises:
        DataError: the file cannot be read or is not of that form.
    """
    file = resources.files("charrnn.data") / "catalogue.toml" if path is None else path
    try:
        entries = tomllib.loads(file.read_text(encoding="utf-8"))
        return {name: _corpus(name, dict(entry)) for name, entry in entries.items()}
    except OSError as error:
        raise DataError(f"cannot read catalogue {file}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{file} is no catalogue of corpora: {error}") from error


def _corpus(name: str, entry: dict[str, Any]) -> Corpus:
    expected, member = _expected(entry), entry.pop("member", None)
    if member is not None:
        entry["member"] = Member(member["name"], _expected(dict(member)))
    return Corpus(name=name, expected=expected, **entry)


def _expected(entry: dict[str, Any]) -> Expected:
    """Taken out of an entry."""
    found: Mapping[str, Any] = {
        key: entry.pop(key) for key in ("num_bytes", "sha256", "git_sha1") if key in entry
    }
    return Expected(**found)

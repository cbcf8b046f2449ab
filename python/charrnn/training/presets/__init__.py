"""Settings that go together, by name: those of Karpathy's essay, and one for a machine with two cores.

Each is a TOML file beside this one, whose first comment says what it is for. Its table ``train`` is that of a
file for ``--config``, so that a printed preset can be edited and used. Knows neither torch nor texts.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charrnn.errors import ConfigError

_FOLDER = Path(__file__).parent
# Of these one is given; what the caller gives takes the place of the preset's.
_RIVALS = ("max_steps", "max_epochs")


@dataclass(frozen=True)
class Preset:
    """``purpose`` is the first comment of ``text``, the whole file; ``settings`` are those it changes."""

    name: str
    purpose: str
    text: str
    settings: Mapping[str, Any]

    def with_changes(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Its settings, and ``changes`` where both have one."""
        is_ended_otherwise = any(changes.get(name) is not None for name in _RIVALS)
        kept = {
            name: value
            for name, value in self.settings.items()
            if not (is_ended_otherwise and name in _RIVALS)
        }
        return {**kept, **changes}


def names() -> tuple[str, ...]:
    """All there are, in the order of the alphabet."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def read(name: str) -> Preset:
    """One of them.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in names():
        raise ConfigError(f"preset is {name!r}: give one of {', '.join(names())}")
    text = (_FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    settings = tomllib.loads(text)["train"]
    if "sample_at" in settings:
        settings["sample_at"] = tuple(settings["sample_at"])
    return Preset(name, _first_comment(text), text, settings)


def _first_comment(text: str) -> str:
    """The lines up to the first that is no comment, or an empty one, as one."""
    lines = text.splitlines()
    end = next(index for index, line in enumerate(lines) if not line.startswith("# "))
    return " ".join(line.removeprefix("# ") for line in lines[:end])

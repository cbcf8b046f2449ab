"""Where fetched corpora lie, so that they can be called by name. Knows no network."""

from __future__ import annotations

import os
from pathlib import Path

from charrnn.data.catalogue import read_catalogue
from charrnn.errors import DataError


def path_of(name: str) -> Path:
    """Where the corpus ``name`` lies once it is fetched.

    In the folder that ``CHARRNN_DATA`` names, or else in ``charrnn`` in the user's cache.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("CHARRNN_DATA") or Path(cache, "charrnn"), f"{name}.txt")


def find_fetched(name: str) -> Path:
    """The file of the corpus ``name``; nothing is fetched.

    Raises:
        DataError: it is not here; says which command fetches it.
    """
    path = path_of(name)
    if path.is_file():
        return path
    if name in read_catalogue():
        raise DataError(f"corpus {name} is not in {path.parent}: charrnn data get {name} fetches it")
    raise DataError(f"no corpus is called {name!r}: charrnn data list tells those there are")

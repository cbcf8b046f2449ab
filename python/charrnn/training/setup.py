"""From a text to a run folder that can be trained in, and back from a run folder to its text.

Knows nothing of models or steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from charrnn.errors import CheckpointError, ConfigError, DataError
from charrnn.training.config import TrainConfig
from charrnn.training.corpus import (
    Scan,
    Source,
    Tokens,
    make_vocab,
    open_tokens,
    scan,
    sha256_of,
    token_dtype,
    write_tokens,
)
from charrnn.training.files import sha256_file, write_json
from charrnn.training.run_folder import RunFolder
from charrnn.training.splits import Split, check_size
from charrnn.vocab import Vocab

Note = Callable[[str], None]


@dataclass(frozen=True)
class Material:
    """What a run is trained on. ``info`` is what run.json says of it: corpus, tokens and split."""

    vocab: Vocab
    tokens: Tokens
    split: Split
    info: dict[str, Any]

    @property
    def corpus_sha256(self) -> str:
        """The hash of the text's bytes."""
        return str(self.info["corpus"]["sha256"])

    @property
    def parts(self) -> dict[str, Tokens]:
        """Token ids of each part of the split."""
        return self.split.cut(self.tokens)


def begin(folder: RunFolder, config: TrainConfig, source: Source) -> Material:
    """Read a text and write everything that stays the same through the run. run.json comes last.

    Raises:
        DataError: the text cannot be read or is too small; then nothing has been written.
    """
    seen = scan(source, config.unit)
    check_size(seen.num_symbols, config, source.name)
    vocab = make_vocab(source, seen, config.unit)
    write_json(folder.config, config.to_json())
    folder.write_info({"corpus": _identity(source)})
    write_json(folder.vocab, vocab.to_json())
    return _encode(folder, config, source, vocab, seen)


def reopen(folder: RunFolder, source: Source | None, expected: str | None, *, may_change: bool) -> Material:
    """Find the text of a run again.

    Args:
        folder: a run that was begun.
        source: where the text is now; None looks where it was, and does without it if it has gone.
        expected: the hash of the text that the checkpoint was trained on, None before the first.
        may_change: whether another text may take its place.

    Raises:
        ConfigError: the text has changed, and may not.
        CheckpointError: the run's own files are damaged and the text is not at hand.
    """
    config, info = folder.read_config(), folder.read_info()
    known = _where_it_was(info) if source is None else source
    if "tokens" not in info:  # killed before the text was encoded
        return begin(folder, config, _required(known, info))
    expected = expected or str(info["corpus"]["sha256"])
    found = expected if known is None else sha256_of(known)
    if found != expected and not may_change:
        raise ConfigError(
            f"the corpus has changed since the run was saved: sha256 was {expected}, "
            f"{_required(known, info).name} has {found}; restore it, or go on with the new text by "
            "--allow-data-change"
        )
    if found == info["corpus"]["sha256"] and _is_intact(folder, info):
        return _open(folder, folder.read_vocab(), info)
    source = _required(known, info)
    seen = scan(source, config.unit)
    check_size(seen.num_symbols, config, source.name)
    return _encode(folder, config, source, folder.read_vocab(), seen)


def read(folder: RunFolder) -> Material:
    """The text of a run as it is stored there."""
    info = folder.read_info()
    if "tokens" not in info or not folder.tokens.is_file():
        raise CheckpointError(f"{folder.path} holds no encoded text: its training was not begun")
    return _open(folder, folder.read_vocab(), info)


def _encode(folder: RunFolder, config: TrainConfig, source: Source, vocab: Vocab, seen: Scan) -> Material:
    num_tokens, digest = write_tokens(source, vocab, folder.tokens)
    if num_tokens != seen.num_symbols:
        raise DataError(f"corpus {source.name} changed while it was read: start when nobody writes to it")
    split = Split.of(config.split, num_tokens)
    info = {
        "corpus": _identity(source) | {"sha256": seen.sha256, "num_bytes": seen.num_bytes},
        "tokens": {"dtype": token_dtype(vocab).name, "num_tokens": num_tokens, "sha256": digest},
        "split": split.to_json(),
    }
    if folder.info.exists():
        info = {"checkpoints": folder.read_info().get("checkpoints", {}), **info}
    folder.write_info(info)
    return _open(folder, vocab, folder.read_info())


def _open(folder: RunFolder, vocab: Vocab, info: dict[str, Any]) -> Material:
    tokens = open_tokens(folder.tokens, np.dtype(info["tokens"]["dtype"]).name)
    if len(tokens) != info["tokens"]["num_tokens"]:
        raise CheckpointError(
            f"{folder.tokens} holds {len(tokens)} tokens where run.json says {info['tokens']['num_tokens']}: "
            "continue the run from its text with --resume"
        )
    return Material(vocab, tokens, Split.from_json(info["split"]), info)


def _is_intact(folder: RunFolder, info: dict[str, Any]) -> bool:
    return folder.tokens.is_file() and sha256_file(folder.tokens) == info["tokens"]["sha256"]


def _identity(source: Source) -> dict[str, Any]:
    path = None if source.path is None else str(source.path.resolve())
    return {"name": source.name, "path": path}


def _where_it_was(info: dict[str, Any]) -> Source | None:
    path = info["corpus"]["path"]
    if path is None:
        return Source(None)
    return Source(Path(path)) if Path(path).is_file() else None


def _required(source: Source | None, info: dict[str, Any]) -> Source:
    if source is None:
        raise CheckpointError(
            f"the run's encoded text is damaged and {info['corpus']['path']} has gone: give the corpus again"
        )
    return source

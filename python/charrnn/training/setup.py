"""From a text to a run folder that can be trained in, and back from a run folder to its text.

Knows nothing of models or steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from charrnn.errors import CheckpointError, ConfigError, DataError
from charrnn.training.config import TrainConfig
from charrnn.training.corpus import (
    Scan,
    encoded,
    make_vocab,
    open_tokens,
    scan,
    sha256_of,
    token_dtype,
    write_tokens,
)
from charrnn.training.files import sha256_file, write_json
from charrnn.training.layout import DocumentLayout, Layout, RangeLayout
from charrnn.training.run_folder import RunFolder
from charrnn.training.sources import STDIN, TOPICS, Source, find_source
from charrnn.training.splits import Split, Tokens, check_documents, check_size
from charrnn.training.symbols import Rules
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
    def end_token(self) -> int | None:
        """The token that ends a document; None if the text is one."""
        return end_token_of(self.info)

    @property
    def parts(self) -> dict[str, Tokens]:
        """Token ids of each part of the split."""
        return self.split.cut(self.tokens)


@dataclass(frozen=True)
class Text:
    """A text that has been read once and can be trained on. Nothing is written yet."""

    source: Source
    seen: Scan
    vocab: Vocab

    def notes(self) -> Iterator[str]:
        """What somebody who trains on it should know."""
        seen = self.seen
        if empty := self.source.empty_files():
            more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
            yield f"warning: {len(empty)} files of the corpus are empty: {', '.join(empty[:3])}{more}"
        if seen.num_replaced:
            yield f"warning: {seen.num_replaced:,} sequences that are not UTF-8 are read as U+FFFD"
        if seen.end is not None:
            left_out = f", {seen.num_empty:,} empty ones left out" if seen.num_empty else ""
            yield f"{seen.num_documents:,} documents{left_out}, each ended by {escaped(seen.end)}"


@dataclass(frozen=True)
class Standing:
    """Where a run to be reopened stands: at a checkpoint, or before the first one.

    ``corpus_sha256`` is of the text that the checkpoint was trained on last; a run that ``is_over`` trains no
    more.
    """

    step: int = 0
    corpus_sha256: str | None = None
    is_over: bool = False


def look_at(
    source: Source, config: TrainConfig, vocab: Vocab | None = None, end_token: int | None = None
) -> Text:
    """Read a text and see that it can be trained on, with its own vocabulary or a given one.

    Raises:
        DataError: the text cannot be read or is too small.
    """
    end = None if vocab is None or end_token is None else vocab.symbols[end_token]
    seen = scan(source, Rules.of(config), end)
    if config.separator:
        check_documents(seen.num_documents, config, source.name)
    else:
        check_size(seen.num_symbols, config, source.name)
    return Text(source, seen, make_vocab(source, seen, config.unit) if vocab is None else vocab)


def begin(folder: RunFolder, config: TrainConfig, text: Text, origin: Mapping[str, Any]) -> Material:
    """Write everything that stays the same through the run. run.json comes first with the text, and last.

    ``origin`` says where the run's settings and first weights come from, as far as that is elsewhere.
    """
    folder.write_config(config)
    folder.write_info({"corpus": _identity(text.source), **({"origin": origin} if origin else {})})
    write_json(folder.vocab, text.vocab.to_json())
    return _encode(folder, config, text, [])


def reopen(folder: RunFolder, source: Source | None, standing: Standing, *, may_change: bool) -> Material:
    """Find the text of a run again. Nothing is written for a run that is over, but to repair its text.

    Args:
        folder: a run that was begun.
        source: where the text is now; None looks where it was, and does without it if it has gone.
        standing: the checkpoint from which the run goes on.
        may_change: whether another text may take its place.

    Raises:
        ConfigError: the text has changed, and may not.
        CheckpointError: the run's own files are damaged and the text is not at hand.
    """
    config, info = folder.read_config(), folder.read_info()
    known = _where_it_was(folder, info) if source is None else source
    if "tokens" not in info:  # killed before the text was encoded
        if known is None:
            raise CheckpointError(_lost(folder, info))
        return begin(folder, config, look_at(known, config), info.get("origin", {}))
    stored = str(info["corpus"]["sha256"])
    expected = standing.corpus_sha256 or stored
    found = stored if known is None else sha256_of(known)
    if found != expected and not may_change:
        raise ConfigError(_changed(folder.tokens.name if known is None else known.name, expected, found))
    if _is_intact(folder, info) and (found == stored or standing.is_over):
        info = info if standing.is_over else _dated(folder, info, standing.step)
        return _open(folder, folder.read_vocab(), info)
    if known is None or (standing.is_over and found != stored):
        raise CheckpointError(_lost(folder, info))
    text = look_at(known, config, folder.read_vocab(), end_token_of(info))
    return _encode(folder, config, text, _earlier(info, standing.step, found))


def read(folder: RunFolder) -> Material:
    """The text of a run as it is stored there, compared with its hash.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    info = folder.read_info()
    if "tokens" not in info or not folder.tokens.is_file():
        raise CheckpointError(f"{folder.path} holds no encoded text: its training was not begun")
    expected, found = info["tokens"]["sha256"], sha256_file(folder.tokens)
    if found != expected:
        raise CheckpointError(
            f"{folder.tokens} is damaged: expected sha256 {expected}, found {found}; "
            "charrnn train --resume with the corpus repairs it"
        )
    return _open(folder, folder.read_vocab(), info)


def corpora_at(info: Mapping[str, Any], step: int) -> list[dict[str, Any]]:
    """The texts that the weights of a step were trained on, oldest first, by what run.json says."""
    texts: list[dict[str, Any]] = []
    for text in [*info.get("earlier_corpora", ()), info["corpus"]]:
        if texts and texts[-1]["until_step"] >= step:
            break
        texts.append(dict(text))
    return texts


def end_token_of(info: Mapping[str, Any]) -> int | None:
    """The token that ends a document of a run, by what run.json says."""
    end_token: int | None = info["tokens"].get("end_token")
    return end_token


def escaped(code: int) -> str:
    """A symbol as people read it."""
    return repr(chr(code)) if code < 128 else f"U+{code:04X}"


def _earlier(info: Mapping[str, Any], step: int, sha256: str) -> list[dict[str, Any]]:
    """The texts before one that is trained on from ``step`` on, each with the step at which it ended."""
    texts = corpora_at(info, step) if step else []
    if texts and texts[-1]["sha256"] == sha256:
        return texts[:-1]
    return [*texts[:-1], *(text | {"until_step": step} for text in texts[-1:])]


def _dated(folder: RunFolder, info: dict[str, Any], step: int) -> dict[str, Any]:
    """``info`` with the steps of earlier texts as they are when the run goes on from ``step``."""
    earlier = _earlier(info, step, info["corpus"]["sha256"])
    if earlier != info.get("earlier_corpora", []):
        folder.write_info(_info(info.get("checkpoints", {}), earlier, info))
    return folder.read_info()


def _info(checkpoints: Any, earlier: list[dict[str, Any]], text: Mapping[str, Any]) -> dict[str, Any]:
    named = {"earlier_corpora": earlier} if earlier else {}
    kept = {key: text[key] for key in ("origin", "corpus", "tokens", "split") if key in text}
    return {"checkpoints": checkpoints, **named, **kept}


def _encode(folder: RunFolder, config: TrainConfig, text: Text, earlier: list[dict[str, Any]]) -> Material:
    source, seen, vocab = text.source, text.seen, text.vocab
    end_token = None if seen.end is None else vocab.symbols.index(seen.end)
    layout = _layout(config, seen, end_token)
    digest = write_tokens(encoded(source, Rules.of(config), vocab, seen), layout, folder.tokens)
    ends = {} if end_token is None else {"end_token": end_token, "num_documents": seen.num_documents}
    dtype = token_dtype(vocab).name
    told = {
        "corpus": _identity(source) | {"sha256": seen.sha256, "num_bytes": seen.num_bytes},
        "tokens": {"dtype": dtype, "num_tokens": seen.num_symbols, "sha256": digest, **ends},
        "split": layout.split().to_json(),
    }
    info = folder.read_info()
    kept = {key: info[key] for key in ("origin",) if key in info}
    folder.write_info(_info(info.get("checkpoints", {}), earlier, {**kept, **told}))
    return _open(folder, vocab, folder.read_info())


def _layout(config: TrainConfig, seen: Scan, end_token: int | None) -> Layout:
    if end_token is None:
        return RangeLayout(config.split, seen.num_symbols)
    return DocumentLayout(config.split, end_token, seen.num_symbols, seen.sizes)


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
    return {
        "name": source.name.encode(errors="backslashreplace").decode(),
        "words": list(source.words),
    }


def _where_it_was(folder: RunFolder, info: dict[str, Any]) -> Source | None:
    """The text where the run found it, or nothing if it has gone from there."""
    words = _words(info["corpus"])
    if STDIN in words and not folder.stdin.exists():
        return None
    try:
        return find_source(words, spool=folder.stdin, leave_out=folder.path)
    except DataError:
        return None


def _words(corpus: Mapping[str, Any]) -> list[str]:
    """By which a text is found; runs of the first days name one path, or none for the built-in corpus."""
    return list(corpus.get("words", [corpus.get("path") or TOPICS]))


def _changed(name: str, expected: str, found: str) -> str:
    return (
        f"the corpus has changed since the run was saved: sha256 was {expected}, {name} has {found}; "
        "restore it, or go on with the new text by --allow-data-change"
    )


def _lost(folder: RunFolder, info: dict[str, Any]) -> str:
    corpus = info["corpus"]
    state = "damaged" if folder.tokens.exists() else "missing"
    which = f"with sha256 {corpus['sha256']}" if "sha256" in corpus else "of this run"
    return (
        f"the run's encoded text {folder.tokens} is {state} and {', '.join(_words(corpus))} has gone "
        f"or changed: give the corpus {which} again"
    )

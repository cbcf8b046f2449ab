"""All that is measured of a run on one text, and what it is measured against.

Knows runs and their texts, not how figures are shown.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from charrnn.errors import DataError
from charrnn.training.cold import Bucket, cold_loss, loss_by_position
from charrnn.training.corpus import encoded, scan
from charrnn.training.draws import draw_texts, split_documents
from charrnn.training.dynamic import dynamic_loss
from charrnn.training.evaluation import Loss, evaluate
from charrnn.training.grams import Tokens
from charrnn.training.memorisation import Documents, Memorisation, documents, memorised
from charrnn.training.ngram import NgramLosses, ngram_losses
from charrnn.training.run import Run
from charrnn.training.sampling import start_token
from charrnn.training.sources import find_source
from charrnn.training.splits import Tokens as CorpusTokens
from charrnn.training.symbols import Rules

# Enough to see a curve, and seconds to draw: 20,000 symbols, or 2,000 documents.
NUM_TEXTS, TEXT_TOKENS = 20, 1000
NUM_DOCUMENTS, DOCUMENT_TOKENS = 2000, 1000


@dataclass(frozen=True)
class Wanted:
    """Which figures are asked for besides the carried and the cold loss."""

    ngram: bool = True
    dynamic: bool = False
    memorisation: bool = False


@dataclass(frozen=True)
class Copied:
    """What of the ``drawn`` texts is in the training text, and of as many symbols ``held_out`` from it.

    ``excerpt`` is the longest run. Of a run of documents only: ``documents`` compares those drawn with those
    of the training text, ``held_out_documents`` those of the validation text.
    """

    drawn: Memorisation
    held_out: Memorisation | None
    excerpt: str
    documents: Documents | None = None
    held_out_documents: Documents | None = None


@dataclass(frozen=True)
class Measures:
    """Figures of one checkpoint on ``num_tokens`` symbols: of a part of the run's text, or of a file.

    ``window`` is the length of cold windows, the run's bptt. Documents have none: each is predicted from
    the zero state.
    """

    text: str
    num_tokens: int
    carried: Loss
    cold: Loss | None
    window: int
    by_position: list[Bucket]
    ngram: NgramLosses | None = None
    dynamic: Loss | None = None
    copied: Copied | None = None

    def losses(self) -> dict[str, Loss]:
        """Every mean loss by what it is, in the order of tables."""
        rows = {"each document" if self.cold is None else "state carried": self.carried}
        if self.cold is not None:
            rows[f"cold windows of {self.window}"] = self.cold
        if self.dynamic is not None:
            rows["dynamic evaluation"] = self.dynamic
        if self.ngram is not None:
            for order, nats in enumerate(self.ngram.nats, 1):
                rows[f"{order}-gram"] = Loss(nats, self.ngram.num_tokens)
        return rows

    def to_json(self) -> dict[str, Any]:
        """As plain values; what was not measured is null."""
        return {
            "text": self.text,
            "text_tokens": self.num_tokens,
            "carried": _loss(self.carried),
            "cold": self.cold and _loss(self.cold) | {"window": self.window},
            "by_position": [
                {"first": bucket.first, "last": bucket.last, **_loss(bucket.loss)}
                for bucket in self.by_position
            ],
            "ngram": self.ngram and self.ngram.to_json(),
            "dynamic": self.dynamic and _loss(self.dynamic),
            "memorisation": self.copied and asdict(self.copied),
        }


def use_threads(num_threads: int | None) -> None:
    """Let torch compute with so many threads; None leaves it its choice."""
    if num_threads is not None:
        torch.set_num_threads(num_threads)


def part_of(run: Run, part: str) -> CorpusTokens:
    """A part of a run's text.

    Raises:
        DataError: the run's split has no such part, or too little of it.
    """
    if part not in run.tokens:
        parts = ", ".join(run.tokens)
        raise DataError(f"run {run.path} has no part {part!r}, its split {run.split.name} has {parts}")
    if len(run.tokens[part]) < 2:
        raise DataError(f"part {part} of {run.path} has {len(run.tokens[part])} symbols; a loss needs two")
    return run.tokens[part]


def read_text(path: str | os.PathLike[str], run: Run) -> CorpusTokens:
    """Token ids of a text, read as the run's own was: its unit, its separator, its policy for bad UTF-8.

    Raises:
        DataError: it cannot be read, has a symbol that the run does not know, or fewer than two.
    """
    source, rules = find_source(path), Rules.of(run.config)
    seen = scan(source, rules, None if run.end_token is None else run.vocab.symbols[run.end_token])
    if seen.num_symbols < 2:
        raise DataError(f"{path} has {seen.num_symbols} {run.config.unit}s; a loss needs two or more")
    return np.concatenate(list(encoded(source, rules, run.vocab, seen)))


def measure(
    run: Run, tokens: CorpusTokens, text: str, wanted: Wanted, *, num_streams: int | None = None
) -> Measures:
    """Measure a run on token ids, two or more, that ``text`` names; ``num_streams`` as in ``evaluate``."""
    train, vocab_size, end = run.tokens["train"], run.model.shape.vocab_size, run.end_token
    return Measures(
        text=text,
        num_tokens=len(tokens),
        carried=evaluate(run.model, tokens, num_streams=num_streams, end_token=end),
        cold=cold_loss(run.model, tokens, run.config.bptt) if end is None else None,
        window=run.config.bptt,
        by_position=loss_by_position(run.model, tokens, end),
        ngram=ngram_losses(train, tokens, vocab_size, end_token=end) if wanted.ngram else None,
        dynamic=dynamic_loss(run.model, tokens, train, end_token=end) if wanted.dynamic else None,
        copied=copied(run) if wanted.memorisation else None,
    )


def copied(run: Run) -> Copied:
    """Draw texts from a run and compare them with its training text; beside them, text held out from it."""
    train, end = run.tokens["train"], run.end_token
    if end is None:
        start = start_token(run.vocab)
        texts = draw_texts(run.model, start, num_texts=NUM_TEXTS, num_tokens=TEXT_TOKENS)
        return _copied(run, texts, _like(run.tokens.get("validation"), len(texts)))
    texts = draw_texts(run.model, end, num_texts=NUM_DOCUMENTS, num_tokens=DOCUMENT_TOKENS, end=end)
    held_out = (
        split_documents(run.tokens["validation"], end)[:NUM_DOCUMENTS] if "validation" in run.tokens else []
    )
    known = split_documents(train, end)
    return replace(
        _copied(run, texts, held_out),
        documents=documents(texts, known),
        held_out_documents=documents(held_out, known) if held_out else None,
    )


def _copied(run: Run, texts: list[Tokens], held_out: list[Tokens]) -> Copied:
    train = run.tokens["train"]
    drawn = memorised(texts, train)
    longest, excerpt = drawn.longest, ""
    if longest is not None:
        excerpt = run.vocab.decode(texts[longest.index][longest.at : longest.at + longest.length])
    return Copied(drawn, memorised(held_out, train) if held_out else None, excerpt)


def _like(tokens: Tokens | None, num_texts: int) -> list[Tokens]:
    """As many pieces as texts, of their length, spread over held-out text; fewer if it is short."""
    if tokens is None or len(tokens) < TEXT_TOKENS:
        return []
    num_pieces = min(num_texts, len(tokens) // TEXT_TOKENS)
    stride = len(tokens) // num_pieces
    return [tokens[at * stride : at * stride + TEXT_TOKENS] for at in range(num_pieces)]


def _loss(loss: Loss) -> dict[str, Any]:
    return {"nats": loss.nats, "bpc": loss.bpc, "num_tokens": loss.num_tokens}

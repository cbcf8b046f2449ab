"""Import: foreign weights read, placed, given a vocabulary, scored, and exported like any other model.

Ties the package together; files, layouts and vocabularies are in the modules beside it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch

from charrnn.errors import DataError, RequestError
from charrnn.export.arithmetic import PRECISIONS
from charrnn.export.exporter import ExportOptions, check_target, export_model
from charrnn.export.foreign.layouts import place
from charrnn.export.foreign.reader import read_arrays
from charrnn.export.foreign.symbols import read_vocab
from charrnn.export.report import ExportReport
from charrnn.export.source import TrainedModel
from charrnn.export.weights import StepWeights
from charrnn.training import evaluate
from charrnn.training.model import CharRNN, ModelShape
from charrnn.vocab import Vocab

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Foreign:
    """Weights to import, and what is to be known of them.

    ``vocab``: JSON, by default ``vocab.json`` of a folder. ``symbols``: what single ids mean, where that file
    is damaged. ``forget_bias``: of layout ``tf``, added to the forget gate as BasicLSTMCell does at run time.
    """

    path: StrPath
    layout: str
    vocab: StrPath | None = None
    symbols: Mapping[int, str] = field(default_factory=dict)
    forget_bias: float = 1.0


@dataclass(frozen=True)
class TextScore:
    """Mean loss of torch over ``num_tokens`` predictions: the zero state at the start, carried to the end."""

    text: str
    nats: float
    num_tokens: int

    @property
    def bpc(self) -> float:
        """Bits per character."""
        return self.nats / math.log(2)


def import_weights(
    foreign: Foreign,
    out: StrPath,
    texts: Sequence[StrPath] = (),
    options: ExportOptions | None = None,
    *,
    precisions: Sequence[str] = PRECISIONS,
    on_score: Callable[[TextScore], object] = lambda score: None,
) -> ExportReport:
    """Write foreign weights as a bundle ``out``; precisions are judged by the texts, if there are any.

    Raises:
        DataError: weights, vocabulary or a text cannot be read or do not fit each other.
        ParityError, ConfigError, BundleError: as ``charrnn.export.export``.
    """
    options = options or ExportOptions()
    check_target(Path(out), force=options.force)
    source = read_foreign(foreign)
    scored = [_scored(source, text) for text in texts]
    for score, _ in scored:
        on_score(score)
    parts = [tokens for _, tokens in scored]
    judged = TrainedModel(
        source.model,
        source.unit,
        source.symbols,
        np.concatenate(parts) if parts else source.validation,
        {**source.training, "losses": {score.text: score.nats for score, _ in scored}},
    )
    return export_model(judged, out, precisions, options)


def read_foreign(foreign: Foreign) -> TrainedModel:
    """The model of foreign weights, in evaluation mode on the CPU.

    Raises:
        DataError: see ``import_weights``.
    """
    path = Path(foreign.path)
    if not math.isfinite(foreign.forget_bias):
        raise DataError(f"forget_bias is {foreign.forget_bias}; give a finite number")
    weights = place(read_arrays(path), foreign.layout, foreign.forget_bias)
    vocab = read_vocab(_vocab_path(foreign, path), weights.vocab_size, foreign.symbols)
    training = {"imported": {"file": path.name, "layout": foreign.layout}}
    return TrainedModel(_model(weights), vocab.unit, tuple(vocab.symbols), np.empty(0, np.uint32), training)


def _vocab_path(foreign: Foreign, path: Path) -> Path:
    if foreign.vocab is not None:
        return Path(foreign.vocab)
    if path.is_dir():
        return path / "vocab.json"
    raise DataError(f"{path} says nothing of its symbols; give a JSON map of characters to ids with --vocab")


def _model(weights: StepWeights) -> CharRNN:
    embedding_dim = 0 if weights.embedding is None else weights.embedding.shape[1]
    cell = cast(Literal["lstm", "gru", "rnn"], weights.cell)
    shape = ModelShape(weights.vocab_size, cell, len(weights.layers), weights.hidden_size, embedding_dim)
    model = CharRNN(shape)
    model.load_state_dict(
        {name: torch.from_numpy(np.array(array)) for name, array in _state(weights).items()}
    )
    return model.eval()


def _state(weights: StepWeights) -> dict[str, npt.NDArray[np.float32]]:
    state = {"head.weight": weights.head_weight, "head.bias": weights.head_bias}
    if weights.embedding is not None:
        state["embedding.weight"] = weights.embedding
    for index, layer in enumerate(weights.layers):
        state |= {
            f"rnn.weight_ih_l{index}": layer.w_ih,
            f"rnn.weight_hh_l{index}": layer.w_hh,
            f"rnn.bias_ih_l{index}": layer.b_ih,
            f"rnn.bias_hh_l{index}": layer.b_hh,
        }
    return state


def _scored(source: TrainedModel, path: StrPath) -> tuple[TextScore, npt.NDArray[Any]]:
    """What torch makes of the text at ``path``, and its token ids."""
    vocab = Vocab(source.symbols, cast(Literal["char", "byte"], source.unit))
    try:
        tokens = vocab.encode(Path(path).read_bytes().decode())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error
    except RequestError as error:
        raise DataError(f"{path}: {error}") from error
    if len(tokens) < 2:
        raise DataError(f"{path} has {len(tokens)} symbols; a score needs two or more")
    loss = evaluate(source.model, tokens.astype(np.int64), num_streams=1)
    return TextScore(Path(path).name, loss.nats, loss.num_tokens), tokens

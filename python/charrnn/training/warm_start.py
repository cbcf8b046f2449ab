"""Beginning with the weights of another model, symbol by symbol: ids and alphabet may differ.

What a symbol has of its own (a column of the input weights or a row of the embedding, a row and a bias of
the head) goes to the same symbol here; all else goes as it is. A symbol new to the other model keeps
the fresh weights that were drawn for it. The optimiser begins anew. Knows nothing of texts or steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from charrnn.bundle import Bundle
from charrnn.errors import CheckpointError, ConfigError
from charrnn.training.checkpoint import MODEL, load_checkpoint
from charrnn.training.config import TrainConfig
from charrnn.training.files import sha256_json
from charrnn.training.model import CharRNN
from charrnn.training.run_folder import RunFolder
from charrnn.vocab import Vocab

_MUST_MATCH = ("unit", "cell", "num_layers", "hidden_size", "embedding_dim")
# Symbols named in a line for people.
_NUM_NAMED = 20


@dataclass(frozen=True)
class Donor:
    """A model to begin with. ``sha256`` is its identity: of a run's weights, or of a bundle's manifest."""

    path: Path
    kind: str
    sha256: str
    step: int | None
    shape: Mapping[str, Any]
    vocab: Vocab
    weights: Mapping[str, Tensor]


def read_donor(path: Path) -> Donor:
    """The best checkpoint of a run folder, or the float32 graph of a bundle folder.

    Raises:
        ConfigError: it is neither, or a bundle without float32.
        CheckpointError, BundleError: it is damaged, or a run without a checkpoint.
    """
    if (path / "manifest.json").is_file():
        return _of_bundle(path)
    if RunFolder(path).info.is_file():
        return _of_run(RunFolder(path))
    raise ConfigError(f"init_from is {str(path)!r}, which is no run and no bundle: give a folder of one")


def _of_run(folder: RunFolder) -> Donor:
    config, vocab = folder.read_config(), folder.read_vocab()
    name = folder.read_info().get("checkpoints", {}).get("best")
    if name is None:
        raise CheckpointError(f"{folder.path} has no checkpoint yet: train it with --resume")
    checkpoint = load_checkpoint(folder.checkpoints / name, weights_only=True)
    state = checkpoint.state
    if sha256_json(vocab.to_json()) != state["vocab_sha256"]:
        raise CheckpointError(f"{folder.vocab} is not the vocabulary of checkpoint {name}: restore it")
    shape = {name: getattr(config, name) for name in _MUST_MATCH}
    digest, step = state["files"][MODEL], state["progress"]["step"]
    return Donor(folder.path, "run", digest, step, shape, vocab, checkpoint.weights)


def _of_bundle(path: Path) -> Donor:
    from charrnn.training.bundle_weights import read_bundle_weights  # onnx takes a moment to load

    bundle = Bundle.open(path)
    shape = {name: getattr(bundle, name) for name in _MUST_MATCH[1:]} | {"unit": bundle.vocab.unit}
    weights = read_bundle_weights(bundle)
    return Donor(path, "bundle", bundle.digest, bundle.training.get("step"), shape, bundle.vocab, weights)


@dataclass(frozen=True)
class WarmStart:
    """Whose weights a model began with, and which symbols it and its donor do not share."""

    donor: Donor
    new_symbols: tuple[int, ...]
    lost_symbols: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """What run.json keeps of it."""
        return {
            "kind": self.donor.kind,
            "path": str(self.donor.path.resolve()),
            "sha256": self.donor.sha256,
            "step": self.donor.step,
            "new_symbols": list(self.new_symbols),
            "lost_symbols": list(self.lost_symbols),
        }

    def lines(self) -> list[str]:
        """The same for people."""
        donor = self.donor
        known = len(donor.vocab) - len(self.lost_symbols)
        step = "" if donor.step is None else f" at step {donor.step}"
        told = [f"warm start from {donor.kind} {donor.path}{step}: {known} symbols known"]
        if self.new_symbols:
            told.append(f"{len(self.new_symbols)} new symbols: {_named(self.new_symbols, donor.vocab.unit)}")
        if self.lost_symbols:
            lost = _named(self.lost_symbols, donor.vocab.unit)
            told.append(f"{len(self.lost_symbols)} of its symbols are not in the text: {lost}")
        return told


def origin_of(
    config: TrainConfig,
    model: CharRNN,
    vocab: Vocab,
    note: Callable[[str], None],
    known: Mapping[str, Any],
) -> dict[str, Any]:
    """Give a fresh model the weights that the settings ask for.

    Returns what run.json says of where a run comes from, empty if that is nowhere; ``known`` is that of a run
    that was begun before, whose donor must still be the same.

    Raises:
        ConfigError: the donor does not fit, or is no longer the one the run was begun with.
        CheckpointError, BundleError: the donor is damaged.
    """
    origin = {"preset": config.preset_name} if config.preset_name else {}
    if config.init_from is None:
        return {**known, **origin}
    before = known.get("init_from", {})
    donor = read_donor(Path(before.get("path", config.init_from)))
    if before and before["sha256"] != donor.sha256:
        raise ConfigError(
            f"{donor.kind} {donor.path} has changed since the run began with it: sha256 was "
            f"{before['sha256']} and is {donor.sha256}; restore it, or begin a new run with another --out"
        )
    check_matches(donor, config)
    start = adopt(model, vocab, donor)
    for line in start.lines():
        note(line)
    return {**known, **origin, "init_from": start.to_json()}


def check_matches(donor: Donor, config: TrainConfig) -> None:
    """See that a donor's weights fit.

    Raises:
        ConfigError: names the first setting that differs, with both values.
    """
    for name in _MUST_MATCH:
        theirs, ours = donor.shape[name], getattr(config, name)
        if theirs != ours:
            option = "--" + name.replace("_", "-")
            raise ConfigError(
                f"{name} is {theirs!r} in {donor.kind} {donor.path} and {ours!r} here: "
                f"give {option} {theirs}, or another init_from"
            )


@torch.no_grad()
def adopt(model: CharRNN, vocab: Vocab, donor: Donor) -> WarmStart:
    """Give a fresh model its donor's weights, which match."""
    theirs = {symbol: token for token, symbol in enumerate(donor.vocab.symbols)}
    symbols = vocab.symbols
    shared = [(token, theirs[symbol]) for token, symbol in enumerate(symbols) if symbol in theirs]
    to, from_ = torch.tensor(shared, dtype=torch.int64).reshape(-1, 2).T  # (num_shared,) each
    for name, weight in model.named_parameters():
        axis = _symbol_axis(name, has_embedding=model.embedding is not None)
        given = donor.weights[name]
        if axis is None:
            weight.copy_(given)
        else:
            chosen = given.index_select(axis, from_).to(weight.device)
            weight.index_copy_(axis, to.to(weight.device), chosen)
    return WarmStart(
        donor,
        tuple(symbol for symbol in symbols if symbol not in theirs),
        tuple(symbol for symbol in theirs if symbol not in set(symbols)),
    )


def _symbol_axis(name: str, *, has_embedding: bool) -> int | None:
    """The axis of a weight along which symbols stand, if there is one."""
    if name.startswith(("embedding.", "head.")):
        return 0
    return 1 if name == "rnn.weight_ih_l0" and not has_embedding else None


def _named(symbols: Sequence[int], unit: str) -> str:
    shown = [repr(chr(symbol)) if unit == "char" else f"0x{symbol:02x}" for symbol in symbols[:_NUM_NAMED]]
    more = len(symbols) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")

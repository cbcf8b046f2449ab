"""A trained run, read back: settings, vocabulary, the model of one checkpoint, and the text behind it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from charrnn.errors import CheckpointError
from charrnn.training import setup
from charrnn.training.checkpoint import load_checkpoint
from charrnn.training.config import TrainConfig
from charrnn.training.files import sha256_json
from charrnn.training.learner import model_shape
from charrnn.training.model import CharRNN
from charrnn.training.run_folder import RunFolder
from charrnn.training.splits import Split, Tokens
from charrnn.vocab import Vocab


@dataclass(frozen=True)
class Run:
    """One checkpoint of a run.

    ``model`` is in evaluation mode on the CPU. ``tokens`` maps the parts of the split (``train``,
    ``validation``, ``test``, as far as the split has them) to token ids. ``losses`` maps ``train`` and
    ``validation`` to nats as last measured at or before ``step``, as far as they were. ``end_token`` ends a
    document and is what one begins with; None if the text was learnt as one.
    """

    path: Path
    config: TrainConfig
    vocab: Vocab
    model: CharRNN
    step: int
    split: Split
    tokens: Mapping[str, Tokens]
    losses: Mapping[str, float]
    info: Mapping[str, Any]
    end_token: int | None = None

    def summary(self) -> dict[str, Any]:
        """How the model was made, for a manifest or a model card.

        ``corpus`` is the text that this checkpoint was trained on last; ``earlier_corpora``, if the text was
        changed on the way to it, are those before, oldest first.
        """
        *earlier, corpus = (
            {key: text[key] for key in ("name", "sha256", "until_step") if key in text}
            for text in setup.corpora_at(self.info, self.step)
        )
        origin = dict(self.info.get("origin", {}))
        if donor := origin.get("init_from"):  # where it lies on this machine is nobody else's business
            origin["init_from"] = {key: value for key, value in donor.items() if key != "path"}
        corpus.pop("until_step", None)  # says when the run went on to another text: not of this checkpoint
        return {
            **({"earlier_corpora": earlier} if earlier else {}),
            **origin,
            "corpus": corpus,
            "split": {"name": self.split.name, "sizes": self.split.sizes},
            "step": self.step,
            "losses": dict(self.losses),
            "config": self.config.to_json(),
            "torch": self.info["torch"],
        }


def load_run(path: str | os.PathLike[str], which: Literal["best", "last"] = "best") -> Run:
    """Read the best or the last checkpoint of a run folder.

    Best is the one with the lowest validation loss; without a validation part it is the last.

    Raises:
        CheckpointError: there is none, or a file is missing or damaged.
    """
    folder = RunFolder(path)
    config, material = folder.read_config(), setup.read(folder)
    name = material.info.get("checkpoints", {}).get(which)
    if name is None:
        raise CheckpointError(f"{folder.path} has no {which} checkpoint yet: train it with --resume")
    checkpoint = load_checkpoint(folder.checkpoints / name, weights_only=True)
    _check_vocab(folder, material.vocab, checkpoint.state)
    model = CharRNN(model_shape(config, len(material.vocab)))
    try:
        model.load_state_dict(dict(checkpoint.weights))
    except RuntimeError as error:
        raise CheckpointError(f"checkpoint {name} of {folder.path} is of another model: {error}") from error
    progress = checkpoint.state["progress"]
    return Run(
        path=folder.path,
        config=config,
        vocab=material.vocab,
        model=model.eval(),
        step=progress["step"],
        split=material.split,
        tokens=material.parts,
        losses=progress["losses"],
        info=material.info | {"torch": checkpoint.state["torch"]},
        end_token=material.end_token,
    )


def _check_vocab(folder: RunFolder, vocab: Vocab, state: Mapping[str, Any]) -> None:
    found = sha256_json(vocab.to_json())
    if found != state["vocab_sha256"]:
        raise CheckpointError(
            f"{folder.vocab} is not the vocabulary of the checkpoint: "
            f"expected sha256 {state['vocab_sha256']}, found {found}"
        )

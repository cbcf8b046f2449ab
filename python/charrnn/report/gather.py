"""What a report tells of a run, as far as the run has come: also while it is being trained.

Knows run folders and measures, neither plots nor HTML.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from charrnn.errors import CheckpointError
from charrnn.training import setup
from charrnn.training.checkpoint import step_of
from charrnn.training.config import TrainConfig
from charrnn.training.diary import read_diary
from charrnn.training.measures import Copied, Measures, Wanted, copied, measure
from charrnn.training.ngram import NgramLosses, ngram_losses
from charrnn.training.run import Run, load_run
from charrnn.training.run_folder import RunFolder

# A page is read, not searched: longer samples are cut, and their files named.
MAX_SAMPLE_CHARS = 3000

Points = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Sample:
    """The beginning of a sample drawn after ``step``; ``num_left_out`` more characters are in ``file``."""

    step: int
    text: str
    file: str
    num_left_out: int


@dataclass(frozen=True)
class Report:
    """What there is to show. ``unit`` is what a loss is for: a character or a byte.

    ``train`` and ``validation`` are losses in nats by step; ``notes`` say what is missing, and why.
    """

    name: str
    unit: str
    facts: Mapping[str, str]
    settings: Mapping[str, Any]
    train: Points
    validation: Points
    samples: Sequence[Sample]
    ngram: NgramLosses | None = None
    measures: Measures | None = None
    copied: Copied | None = None
    notes: Sequence[str] = field(default_factory=tuple)


def gather(
    path: str | os.PathLike[str], *, which: Literal["best", "last"] = "best", dynamic: bool = False
) -> Report:
    """Read a run, and measure the model of its best or last checkpoint if there is one yet.

    Raises:
        CheckpointError: there is no run, or a file of it is damaged.
    """
    folder = RunFolder(path)
    config, info = folder.read_config(), folder.read_info()
    diary, notes = read_diary(folder.path), list[str]()
    run = _newest(folder, which) if info.get("checkpoints") else None
    material = setup.read(folder)
    parts, size = material.parts, len(material.vocab)
    measures = ngram = None
    if len(parts.get("validation", ())) < 2:
        notes.append(
            f"Split {material.split.name} has no validation part: there is no loss but the training one."
        )
    elif run is None:
        ngram = ngram_losses(parts["train"], parts["validation"], size, end_token=material.end_token)
    else:
        measures = measure(run, parts["validation"], "validation", Wanted(dynamic=dynamic))
        ngram = measures.ngram
    if run is None:
        notes.append("The run has no checkpoint yet: its model is not measured.")
    if ngram is not None and ngram.left_out:
        notes.append(f"n-grams: {ngram.left_out}.")
    return Report(
        name=folder.path.resolve().name,
        unit="character" if config.unit == "char" else "byte",
        facts=_facts(material, config, run, diary),
        settings=config.to_json(),
        train=_points(diary, "train_nats", "train"),
        validation=_points(diary, "validation_nats", "eval"),
        samples=_samples(folder),
        ngram=ngram,
        measures=measures,
        copied=None if run is None else copied(run),
        notes=notes,
    )


def _newest(folder: RunFolder, which: Literal["best", "last"]) -> Run:
    """The run; once more if the trainer let go of the checkpoint just as it was read."""
    try:
        return load_run(folder.path, which)
    except CheckpointError:
        return load_run(folder.path, which)


def _points(diary: Sequence[Mapping[str, Any]], name: str, kind: str) -> list[tuple[int, float]]:
    """Losses that are numbers: one that was not finite is null."""
    return [
        (line["step"], float(line[name]))
        for line in diary
        if line.get("kind") == kind and isinstance(line.get(name), int | float)
    ]


def _facts(
    material: setup.Material, config: TrainConfig, run: Run | None, diary: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    corpus, split = material.info["corpus"], material.split
    sizes = ", ".join(f"{part} {size:,}" for part, size in split.sizes.items())
    symbols = "characters" if config.unit == "char" else "bytes"
    facts = {
        "Text": str(corpus.get("name")),
        "sha256 of the text": str(corpus.get("sha256")),
        "Split": f"{split.name}: {sizes} {symbols}",
        "Vocabulary": f"{len(material.vocab)} symbols",
    }
    if config.separator:
        num_documents = material.info["tokens"]["num_documents"]
        facts["Documents"] = (
            f"{num_documents:,}, with {config.separator!r} between them; each is read by itself"
        )
    if run is not None:
        shape = run.model.shape
        facts["Model"] = (
            f"{shape.cell} {shape.num_layers}x{shape.hidden_size}, {run.model.num_parameters:,} parameters"
        )
        facts["Checkpoint measured"] = f"step {run.step:,}"
    if diary:
        facts["Trained so far"] = f"{max(line['step'] for line in diary):,} steps"
    times = [line["elapsed_s"] for line in diary if isinstance(line.get("elapsed_s"), int | float)]
    if times:
        facts["Time"] = f"{times[-1] / 60:.1f} minutes"
    return facts


def _samples(folder: RunFolder) -> list[Sample]:
    """Samples of the run in the order of their steps; files of other names are not samples."""
    if not folder.samples.is_dir():
        return []
    found = [sample for path in folder.samples.glob("step-*.txt") if (sample := _sample(path)) is not None]
    return sorted(found, key=lambda sample: sample.step)


def _sample(path: Path) -> Sample | None:
    try:
        step, text = step_of(path.stem), path.read_bytes().decode(errors="replace")
    except (CheckpointError, OSError):
        return None
    cut = text[:MAX_SAMPLE_CHARS]
    return Sample(step, cut, f"samples/{path.name}", len(text) - len(cut))

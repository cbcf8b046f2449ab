"""Runs side by side: what they differ in, what they cost and what they reached.

Knows run folders, not how a table is shown.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from charrnn.training.diary import read_diary
from charrnn.training.evaluation import Loss, evaluate
from charrnn.training.measures import part_of
from charrnn.training.ngram import NgramLosses, ngram_losses
from charrnn.training.run import Run, load_run

# Where a run was trained, not what on or how.
_OF_THE_MACHINE = {"threads", "device", "checkpoint_every", "strict_save"}


@dataclass(frozen=True)
class Row:
    """One run, at its best or last checkpoint. ``losses`` by part; ``ngram`` is of the validation part.

    ``elapsed_s`` is the time the whole run has trained so far.
    """

    path: str
    step: int
    num_parameters: int
    elapsed_s: float | None
    settings: Mapping[str, Any]
    losses: Mapping[str, Loss]
    ngram: NgramLosses | None
    split: Mapping[str, Any]
    corpus: Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Rows in the order given; ``differing`` settings by name; ``warnings`` why losses cannot be compared."""

    rows: Sequence[Row]
    differing: Mapping[str, Sequence[Any]]
    warnings: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "runs": [_row(row) for row in self.rows],
            "differing": {name: list(values) for name, values in self.differing.items()},
            "warnings": list(self.warnings),
        }


def compare(
    paths: Sequence[str | os.PathLike[str]],
    *,
    which: Literal["best", "last"] = "best",
    with_test: bool = False,
    with_ngram: bool = True,
) -> Comparison:
    """Read runs and measure each on its validation part, and ``with_test`` on its test part.

    Raises:
        CheckpointError: a run is missing, damaged or has no checkpoint yet.
    """
    rows: list[Row] = []
    columns: dict[tuple[str, str], NgramLosses] = {}
    for path in paths:
        run = load_run(path, which)
        parts = [part for part in ("validation", "test")[: 1 + with_test] if part in run.tokens]
        end = run.end_token
        losses = {part: evaluate(run.model, part_of(run, part), end_token=end) for part in parts}
        ngram = _ngram(run, columns) if with_ngram and "validation" in parts else None
        rows.append(_row_of(os.fspath(path), run, losses, ngram))
    return Comparison(rows, _differing(rows), _warnings(rows))


def _ngram(run: Run, columns: dict[tuple[str, str], NgramLosses]) -> NgramLosses:
    """Runs on the same text and split share a column."""
    key = (str(run.info["tokens"]["sha256"]), json.dumps(run.info["split"]))
    if key not in columns:
        train, text, size = run.tokens["train"], run.tokens["validation"], run.model.shape.vocab_size
        columns[key] = ngram_losses(train, text, size, end_token=run.end_token)
    return columns[key]


def _row_of(path: str, run: Run, losses: Mapping[str, Loss], ngram: NgramLosses | None) -> Row:
    summary = run.summary()
    return Row(
        path=path,
        step=run.step,
        num_parameters=run.model.num_parameters,
        elapsed_s=last_elapsed_s(run.path),
        settings=run.config.to_json(),
        losses=losses,
        ngram=ngram,
        split=summary["split"],
        corpus=summary["corpus"],
    )


def last_elapsed_s(path: Path) -> float | None:
    """Seconds a run has trained, by the last line of its diary that tells; None if none does."""
    times = [line["elapsed_s"] for line in read_diary(path) if "elapsed_s" in line]
    return times[-1] if times else None


def _differing(rows: Sequence[Row]) -> dict[str, list[Any]]:
    values = {name: [row.settings[name] for row in rows] for name in rows[0].settings} if rows else {}
    return {
        name: column
        for name, column in values.items()
        if name not in _OF_THE_MACHINE and any(value != column[0] for value in column)
    }


def _warnings(rows: Sequence[Row]) -> list[str]:
    seen: dict[str, set[Any]] = {
        "corpora": {row.corpus.get("sha256") for row in rows},
        "splits": {json.dumps(row.split, sort_keys=True) for row in rows},
        "units": {row.settings["unit"] for row in rows},
    }
    found = [f"{what} differ: losses cannot be compared" for what, kinds in seen.items() if len(kinds) > 1]
    found += [
        f"{row.path} has no validation part: it has no loss to compare" for row in rows if not row.losses
    ]
    return found


def _row(row: Row) -> dict[str, Any]:
    losses = {
        part: {"nats": loss.nats, "bpc": loss.bpc, "num_tokens": loss.num_tokens}
        for part, loss in row.losses.items()
    }
    return {**vars(row), "losses": losses, "ngram": row.ngram and row.ngram.to_json()}

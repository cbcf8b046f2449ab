from __future__ import annotations

import json
from pathlib import Path

import pytest

from charrnn.errors import CheckpointError
from charrnn.training import TrainConfig, Trainer, evaluate, load_run
from charrnn.training.comparison import compare
from charrnn.training.diary import read_diary


def test_what_differs_what_it_cost_and_what_it_reached(
    corpus: Path, small: TrainConfig, tmp_path: Path
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    Trainer(small).fit(corpus, out=a)
    Trainer(small.replace(hidden_size=8, max_steps=12, checkpoint_every=5)).fit(corpus, out=b)
    found = compare([a, b], with_test=True)
    assert found.differing == {"hidden_size": [12, 8], "max_steps": [30, 12]}
    assert found.warnings == []
    first, second = found.rows
    run = load_run(a)
    assert (first.step, first.num_parameters) == (run.step, run.model.num_parameters)
    assert first.losses == {part: evaluate(run.model, run.tokens[part]) for part in ("validation", "test")}
    assert first.elapsed_s == [line["elapsed_s"] for line in read_diary(a) if "elapsed_s" in line][-1]
    assert first.ngram == second.ngram is not None
    told = json.loads(json.dumps(found.to_json()))
    assert told["runs"][1]["losses"]["test"]["nats"] == second.losses["test"].nats


def test_losses_of_other_texts_splits_and_units_are_warned_of(
    corpus: Path, small: TrainConfig, tmp_path: Path
) -> None:
    changes = [{}, {"split": "nanogpt"}, {"split": "none"}, {"unit": "byte"}]
    for index, change in enumerate(changes):
        Trainer(small.replace(max_steps=2, **change)).fit(corpus, out=tmp_path / str(index))
    other = tmp_path / "other.txt"
    other.write_text(corpus.read_text() + "or not.\n")
    Trainer(small.replace(max_steps=2)).fit(other, out=tmp_path / "4")
    runs = [tmp_path / str(index) for index in range(5)]
    assert compare(runs[:1], with_ngram=False).rows[0].ngram is None
    assert [compare([runs[0], run], with_ngram=False).warnings for run in runs[1:]] == [
        ["splits differ: losses cannot be compared"],
        [
            "splits differ: losses cannot be compared",
            f"{runs[2]} has no validation part: it has no loss to compare",
        ],
        ["units differ: losses cannot be compared"],
        ["corpora differ: losses cannot be compared", "splits differ: losses cannot be compared"],
    ]


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is it a run folder"):
        compare([tmp_path])


def test_lines_of_a_diary_that_are_not_whole_are_left_out(tmp_path: Path) -> None:
    lines = [
        b'{"kind": "train", "step": 1}',
        b"[1]",
        b'{"step": "x"}',
        b"\xff",
        b"",
        b'{"kind": "train", "st',
    ]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines))
    assert read_diary(tmp_path) == [{"kind": "train", "step": 1}]
    assert read_diary(tmp_path / "missing") == []

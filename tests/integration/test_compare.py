"""``charrnn compare``: a table for people, a document for programs."""

from __future__ import annotations

import json
from pathlib import Path

from tests.servers import charrnn_here


def test_runs_stand_side_by_side(tiny_run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    corpus = tiny_run.parent / "corpus.txt"
    done = charrnn_here(
        "train", corpus, "--out", other, "--hidden-size", "8", "--max-steps", "5", "--batch-size", "4"
    )
    assert done.returncode == 0, done.stderr
    done = charrnn_here("compare", tiny_run, other, "--with-test", "--threads", "1")
    assert (done.returncode, done.stderr) == (0, "")
    title, *lines = done.stdout.splitlines()
    assert title == "split tail of corpus.txt"
    rows = {line[:20].strip(): line.split()[-2:] for line in lines}
    assert rows["hidden_size"] == ["16", "8"]
    assert float(rows["validation nats"][0]) < float(rows["validation nats"][1])
    told = json.loads(charrnn_here("compare", tiny_run, other, "--json", "--no-ngram").stdout)
    assert f"{told['runs'][0]['losses']['validation']['nats']:.4f}" == rows["validation nats"][0]


def test_losses_that_cannot_be_compared_are_warned_of(tiny_run: Path, tmp_path: Path) -> None:
    done = charrnn_here("train", "--out", tmp_path / "run", "--max-steps", "2", "--split", "none")
    assert done.returncode == 0, done.stderr
    done = charrnn_here("compare", tiny_run, tmp_path / "run", "--no-ngram")
    assert done.returncode == 0
    assert "warning: corpora differ: losses cannot be compared\n" in done.stderr
    assert "different texts or splits" in done.stdout

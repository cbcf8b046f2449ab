"""Training killed at any moment and resumed ends with the bytes of training that was left alone."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("crashing_trainer.py")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rng = random.Random(2)
    path = tmp_path / "corpus.txt"
    path.write_text("".join(rng.choices("abc de\n", k=1500)))
    return path


def crash(
    case: str, corpus: Path, num_runs: int = 0, **changes: object
) -> tuple[str, dict[str, tuple[int, str]]]:
    arguments = [case, corpus, corpus.parent, json.dumps(changes), str(num_runs)]
    done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return found["reference"], found["ends"]


# Several epochs, and documents longer than a window.
DOCUMENTS = {"separator": "\n", "batch_size": 8, "bptt": 4}
GRID = [
    {"cell": cell, "optimizer": optimizer, "threads": threads, **documents}
    for cell in ("lstm", "gru")
    for optimizer in ("adamw", "rmsprop")
    for threads in (1, 2)
    for documents in ({}, DOCUMENTS)
]
# One of text and one of documents; each cell, optimiser and number of threads once.
SOME = (GRID[12], GRID[3])
CASES = [*((6, it) for it in SOME), *(pytest.param(20, it, marks=pytest.mark.slow) for it in GRID)]


@pytest.mark.parametrize(("num_runs", "changes"), CASES)
def test_killed_at_random_steps(corpus: Path, num_runs: int, changes: dict[str, object]) -> None:
    reference, ends = crash("steps", corpus, num_runs, **changes)
    assert len(ends) == num_runs
    assert {kills for kills, _ in ends.values()} == {2}
    assert {end for _, end in ends.values()} == {reference}


def test_killed_at_every_call_that_writes(corpus: Path) -> None:
    reference, ends = crash("calls", corpus, cell="lstm")
    assert len(ends) > 40
    assert {end for _, end in ends.values()} == {reference}


def test_the_command_killed_and_repeated(corpus: Path) -> None:
    def command(run: str) -> list[str]:
        shape = [
            "--hidden-size",
            "8",
            "--dropout",
            "0.2",
            "--batch-size",
            "4",
            "--bptt",
            "8",
            "--threads",
            "1",
        ]
        pace = ["--max-steps", "60", "--checkpoint-every", "5", "--eval-every", "3", "--device", "cpu"]
        out = str(corpus.parent / run)
        return [
            sys.executable,
            "-m",
            "charrnn",
            "train",
            str(corpus),
            "--out",
            out,
            *shape,
            *pace,
            "--resume",
        ]

    for num_evaluations in (4, 9):
        with subprocess.Popen(
            command("run"), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        ) as trainer:
            assert trainer.stderr is not None
            for line in trainer.stderr:
                num_evaluations -= "validation" in line and line.startswith("step")
                if num_evaluations == 0:
                    trainer.kill()
                    break
        assert trainer.returncode == -signal.SIGKILL
    for run in ("run", "whole"):
        subprocess.run(command(run), check=True, capture_output=True)
    ends = {_digest(corpus.parent / run / "checkpoints/step-0000060") for run in ("run", "whole")}
    assert len(ends) == 1


def _digest(checkpoint: Path) -> str:
    return hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()

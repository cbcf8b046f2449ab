"""Two processes train one model: the losses of one process, and no hang when one of them dies."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
SHAPE = {"hidden-size": 32, "batch-size": 4, "bptt": 10, "eval-every": 50, "threads": 1, "sample-chars": 5}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rng = random.Random(3)
    path = tmp_path / "corpus.txt"
    path.write_text("".join(rng.choice(["the ", "cat ", "sat.\n", "on ", "a mat\n"]) for _ in range(2000)))
    return path


def command(num_processes: int, corpus: Path, run: str, **settings: object) -> list[str]:
    start = [*TORCHRUN, str(num_processes), "-m"] if num_processes > 1 else [sys.executable, "-m"]
    given = {**SHAPE, **{name.replace("_", "-"): value for name, value in settings.items()}}
    options = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    out = ["--out", str(corpus.parent / run), "--device", "cpu", "--resume"]
    return [*start, "charrnn", "train", str(corpus), *out, *options]


def losses(corpus: Path, run: str) -> list[tuple[int, str, float]]:
    lines = map(json.loads, (corpus.parent / run / "metrics.jsonl").read_text().splitlines())
    names = ("train_nats", "validation_nats")
    return [(line["step"], name, line[name]) for line in lines for name in names if name in line]


def train(*arguments: object, **settings: object) -> str:
    words = command(*arguments, **settings)  # type: ignore[arg-type]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("documents", [{}, {"separator": "\n", "batch_size": 64}], ids=["text", "documents"])
def test_losses_are_those_of_one_process(corpus: Path, documents: dict[str, object]) -> None:
    for number in (1, 2):
        train(number, corpus, f"run-{number}", max_steps=200, **documents)
    one, two = (losses(corpus, f"run-{number}") for number in (1, 2))
    assert [it[:2] for it in one] == [it[:2] for it in two]
    assert len(one) >= 8
    assert max(abs(a[2] - b[2]) for a, b in zip(one, two, strict=True)) < 1e-5
    assert one[-1][2] < one[0][2] - 0.5, "nothing was learnt"


def rank_1(torchrun: int) -> int:
    """The process id of the second process that torchrun has started."""
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == torchrun and b"\0RANK=1\0" in b"\0" + (entry / "environ").read_bytes():
                return int(entry.name)
        except (OSError, ValueError, IndexError):
            continue
    raise AssertionError("there is no rank 1")


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="there is no /proc")
def test_a_process_that_dies_ends_the_others_and_the_run_goes_on(corpus: Path) -> None:
    pace = {"max_steps": 800, "checkpoint_every": 20, "eval_every": 100_000}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command(2, corpus, "run", **pace), stderr=subprocess.PIPE, text=True, env=environment
    ) as torchrun:
        deadline = time.monotonic() + 120
        while not list((corpus.parent / "run" / "checkpoints").glob("step-*")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(rank_1(torchrun.pid), signal.SIGKILL)
        _, told = torchrun.communicate(timeout=120)
    assert torchrun.returncode != 0
    assert "error: rank 0 lost another process of this training (" in told
    info = json.loads((corpus.parent / "run" / "run.json").read_text())
    step = int(info["checkpoints"]["last"].removeprefix("step-"))
    told = train(1, corpus, "run", **pace)
    assert f"resuming at step {step}\n" in told
    assert "world_size was 2 and is 1: the run goes on" in told
    assert losses(corpus, "run")[-1][0] == 800

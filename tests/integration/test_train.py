"""``charrnn train`` as a process: what it prints, how it ends, who may write where."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from charrnn.cli import main
from charrnn.training import load_run
from charrnn.training.run_folder import RunFolder
from tests.servers import run_charrnn


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


Train = Callable[..., Done]


@pytest.fixture
def train(capsys: pytest.CaptureFixture[str]) -> Train:
    """``charrnn train`` in this process, which has paid for torch already."""

    def run(*arguments: str | Path) -> Done:
        threads, handler = torch.get_num_threads(), signal.getsignal(signal.SIGTERM)
        try:
            code = main(["train", *map(str, arguments)])
        finally:
            torch.set_num_threads(threads)
            signal.signal(signal.SIGTERM, handler)
        told = capsys.readouterr()
        return Done(code, told.out, told.err)

    return run


SMALL = ["--hidden-size", "8", "--batch-size", "4", "--bptt", "8", "--threads", "1", "--device", "cpu"]
SHORT = [*SMALL, "--max-steps", "12", "--eval-every", "5", "--sample-chars", "30"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rng = random.Random(2)
    path = tmp_path / "corpus.txt"
    path.write_text("".join(rng.choices("abc dé\n", k=2000)))
    return path


def test_the_sample_and_nothing_else_is_on_stdout(corpus: Path, tmp_path: Path) -> None:
    done = run_charrnn("train", corpus, "--out", tmp_path / "run", *SHORT, "--sample-at", "5,10")
    assert done.returncode == 0, done.stderr
    sample = (tmp_path / "run/samples/step-0000012.txt").read_text()
    assert done.stdout == sample
    assert len(sample) == 30
    assert len(os.listdir(tmp_path / "run/samples")) == 3
    losses = [line for line in done.stderr.splitlines() if " nats " in line]
    assert [line.split(":")[0] for line in losses if line.startswith("step") and "validation" in line] == [
        "step 5",
        "step 10",
        "step 12",
    ]
    assert all("split tail" in line for line in losses if "validation" in line)
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert kinds == ["eval", "eval", "train", "eval"]


def test_options_reach_the_model(train: Train, corpus: Path, tmp_path: Path) -> None:
    shape = [
        "--cell",
        "gru",
        "--num-layers",
        "1",
        "--embedding-dim",
        "3",
        "--split",
        "nanogpt",
        "--unit",
        "byte",
    ]
    pace = ["--lr", "1e-3", "--schedule", "constant", "--seed", "7", "--clip-norm", "2", "--dropout", "0.1"]
    done = train(corpus, "--out", tmp_path / "run", *SHORT, *shape, *pace)
    assert done.returncode == 0, done.stderr
    run = load_run(tmp_path / "run")
    assert (run.config.cell, run.config.split, run.config.unit, run.config.seed) == (
        "gru",
        "nanogpt",
        "byte",
        7,
    )
    assert (run.config.lr, run.config.schedule, run.config.clip_norm) == (1e-3, "constant", 2)
    assert run.model.rnn.weight_ih_l0.shape == (3 * 8, 3)
    assert list(run.tokens) == ["train", "validation"]


@pytest.mark.parametrize(
    ("extra", "code", "message"),
    [
        (["--hidden-size", "0"], 2, "error: --hidden-size is 0: give a value from 1 to 16384"),
        (["--max-epochs", "3"], 2, "error: --max-steps 12 and --max-epochs 3 exclude each other"),
        (["--lr", "fast"], 2, "error: invalid value for '--lr'"),
        (["--sample-at", "5,x"], 2, "'5,x' is no list of steps"),
        (["--batch-size", "4000"], 3, "error: corpus corpus.txt has 2000 characters: split tail"),
        (
            ["--lr", "1000", "--weight-decay", "100", "--warmup-steps", "0"],
            4,
            "error: training diverged at step",
        ),
    ],
)
def test_errors_are_one_line_and_a_code(
    extra: list[str], code: int, message: str, train: Train, corpus: Path, tmp_path: Path
) -> None:
    done = train(corpus, "--out", tmp_path / "run", *SHORT, *extra)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_bad_utf8_is_one_line(train: Train, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(b"good so far \xff")
    done = train(tmp_path / "bad.txt", "--out", tmp_path / "run", *SHORT)
    assert done.returncode == 3
    assert done.stderr.startswith("error: corpus ")
    assert "bad.txt is not UTF-8 at byte 12 (0xff" in done.stderr


def test_resume_takes_the_settings_of_the_run(train: Train, corpus: Path, tmp_path: Path) -> None:
    first = train(corpus, "--out", tmp_path / "run", *SHORT, "--cell", "rnn")
    again = train("--out", tmp_path / "run", "--resume")
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert "resuming at step 12" in again.stderr
    refused = train(corpus, "--out", tmp_path / "run")
    assert refused.returncode == 3
    assert "exists and is not empty: give --resume" in refused.stderr
    other = train("--out", tmp_path / "run", "--resume", "--cell", "gru")
    assert other.returncode == 3
    assert "cell is 'rnn' in the run and 'gru' was given" in other.stderr
    corpus.write_text(corpus.read_text()[::-1])
    changed = train("--out", tmp_path / "run", "--resume")
    assert changed.returncode == 3
    assert "corpus has changed" in changed.stderr


def test_a_second_trainer_is_kept_out(train: Train, corpus: Path, tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run").locked():
        done = train(corpus, "--out", tmp_path / "run", *SHORT)
    assert done.returncode == 3
    assert f"is locked by pid {os.getpid()}" in done.stderr


SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_saves_and_stops(number: signal.Signals, code: int, corpus: Path, tmp_path: Path) -> None:
    words = ["train", str(corpus), "--out", str(tmp_path / "run"), *SMALL, "--max-steps", "1000000"]
    with subprocess.Popen(
        [sys.executable, "-m", "charrnn", *words, "--eval-every", "5"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # ignored under nohup
    ) as trainer:
        assert trainer.stderr is not None
        for line in trainer.stderr:
            if line.startswith("step 5:"):
                break
        trainer.send_signal(number)
        stdout, stderr = trainer.communicate()
    assert (trainer.returncode, stdout) == (code, "")
    told = stderr.splitlines()[-1]
    assert told.startswith(f"stopped by {number.name} and saved at step ")
    assert load_run(tmp_path / "run", "last").step == int(told.split("step ")[1].split(":")[0])


TWO_SIGNALS = """
import signal, sys
from charrnn.training import TrainConfig, Trainer
from charrnn.training.callbacks import Callback, Stepped

class Impatient(Callback):
    def stepped(self, stepped):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        print("still here", flush=True)

config = TrainConfig(hidden_size=8, batch_size=4, bptt=8, threads=1, device="cpu")
Trainer(config, callbacks=[Impatient()]).fit(sys.argv[1], out=sys.argv[2])
"""


def test_a_second_signal_ends_it_now(corpus: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TWO_SIGNALS, corpus, tmp_path / "run"], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (143, b"")
    assert not (tmp_path / "run/checkpoints").exists()


def test_nobody_reads_the_sample(corpus: Path, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    words = ["train", str(corpus), "--out", str(tmp_path / "run"), *SHORT]
    done = subprocess.run(
        [sys.executable, "-m", "charrnn", *words],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 141
    assert "rror" not in done.stderr
    assert load_run(tmp_path / "run", "last").step == 12


def test_nobody_reads_the_talk(corpus: Path, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    words = ["train", str(corpus), "--out", str(tmp_path / "run"), *SHORT]
    done = subprocess.run(
        [sys.executable, "-m", "charrnn", *words],
        stdout=subprocess.PIPE,
        stderr=writer,
        text=True,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 0
    assert len(done.stdout) == 30

"""Runs whose folder goes away, whose memory ends, or that die at any system call of a save."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import COMMAND, run_charrnn

SHAPE = ("--hidden-size", "16", "--batch-size", "4", "--bptt", "16", "--threads", "1", "--device", "cpu")
STRACE = shutil.which("strace")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("".join(random.Random(1).choices("abc de\n", k=3000)))
    return path


def test_a_folder_that_goes_away_is_named_and_nothing_is_called_saved(corpus: Path, tmp_path: Path) -> None:
    """The folder is deleted under the run at its first sample; the checkpoints that follow have no place."""
    run = tmp_path / "run"
    pace = ("--max-steps", "100000", "--checkpoint-every", "20", "--strict-save", "--max-minutes", "2")
    command = [*COMMAND, "train", str(corpus), "--out", str(run), *SHAPE, *pace]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not (run / "checkpoints").is_dir() or not list((run / "checkpoints").glob("step-*")):
            assert process.poll() is None
        process.send_signal(signal.SIGSTOP)
        shutil.rmtree(run)
        process.send_signal(signal.SIGCONT)
        out, talk = process.communicate(timeout=120)
    errors = [line for line in talk.splitlines() if line.startswith("error: ")]
    assert (process.returncode, len(errors)) == (3, 1), talk
    assert str(run) in errors[0]
    assert "saved" not in talk[talk.index(errors[0]) :]
    assert not out


LIMITED = """
import resource, sys
from pathlib import Path
import torch
from charrnn.cli import main

# What the process has by now, and little more than the first steps take.
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
warm = torch.nn.LSTM(16, 16)(torch.zeros(4, 2, 16))[0].sum().backward()
resource.setrlimit(resource.RLIMIT_AS, (size + int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the size of a process is read from /proc")
def test_memory_that_ends_is_told_by_what_takes_it(corpus: Path, tmp_path: Path) -> None:
    """A limit of the system, and a model that needs far more."""
    run = tmp_path / "run"
    greedy = (
        "--hidden-size",
        "4096",
        "--batch-size",
        "64",
        "--bptt",
        "20",
        "--threads",
        "1",
        "--device",
        "cpu",
    )
    arguments = ["train", str(corpus), "--out", str(run), *greedy, "--max-steps", "5"]
    command = [sys.executable, "-c", LIMITED, str(200 * 2**20), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 1, done.stderr
    assert len(errors) == 1, done.stderr
    assert "out of memory" in errors[0]
    assert "--hidden-size 4096" in errors[0]


@pytest.mark.slow
@pytest.mark.skipif(STRACE is None, reason="strace is not installed")
def test_killed_at_every_system_call_of_a_save_a_run_goes_on(corpus: Path, tmp_path: Path) -> None:
    """Each call that writes, flushes, renames or deletes, in turn, is where the process dies.

    Whatever is left resumes, and ends with the weights of the run that was left alone.
    """
    calls = "renameat2,rename,fsync,mkdir,unlink,unlinkat,rmdir,ftruncate"
    pace = ("--max-steps", "4", "--checkpoint-every", "2", "--eval-every", "3")

    def weights(run: Path) -> bytes:
        named = json.loads((run / "run.json").read_text())
        return (run / "checkpoints" / named["checkpoints"]["last"] / "model.safetensors").read_bytes()

    alone = tmp_path / "alone"
    assert run_charrnn("train", corpus, "--out", alone, *SHAPE, *pace).returncode == 0
    for number in range(1, 1000):
        run = tmp_path / f"run-{number}"
        inject = f"inject={calls}:signal=KILL:when={number}"
        strace = [str(STRACE), "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e", inject]
        train = ("train", str(corpus), "--out", str(run), *SHAPE, *pace, "--resume")
        if subprocess.run([*strace, *COMMAND, *train], capture_output=True, check=False).returncode == 0:
            break
        done = run_charrnn(*train)
        assert done.returncode == 0, f"call {number}: {done.stderr}"
        assert weights(run) == weights(alone), f"killed at call {number}"
    assert number > 20

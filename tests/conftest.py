"""Fixtures that several test folders share."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import hypothesis
import pytest

from tests.servers import run_charrnn

WORDS = "The quick brown fox jumps over a lazy dog, and the dog (who is not so lazy) sleeps. Why? Who knows!"


# How long an example takes says more of the machine than of the code.
hypothesis.settings.register_profile("charrnn", deadline=None)
hypothesis.settings.load_profile("charrnn")

# A shell's background job is started with Ctrl-C ignored, and so would be every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [
        name for name in os.environ if name.startswith("CHARRNN_") and name != "CHARRNN_WRITE_PROTO"
    ]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a two-layer LSTM with 16 units, trained for a moment on made-up sentences."""
    folder = tmp_path_factory.mktemp("tiny")
    corpus, run = folder / "corpus.txt", folder / "run"
    rng = random.Random(1)
    corpus.write_text("\n".join(" ".join(rng.choices(WORDS.split(), k=12)) for _ in range(400)) + "\n")
    shape = ["--num-layers", "2", "--hidden-size", "16", "--batch-size", "8", "--bptt", "32"]
    pace = ["--max-steps", "60", "--seed", "1", "--device", "cpu", "--threads", "1"]
    done = run_charrnn("train", corpus, "--out", run, *shape, *pace, timeout=280)
    assert done.returncode == 0, done.stderr
    return run


@pytest.fixture(scope="session")
def tiny_bundle(tiny_run: Path) -> Path:
    """The bundle of ``tiny_run``, fp32 and int8."""
    bundle = tiny_run.parent / "tiny"
    done = run_charrnn("export", tiny_run, "--out", bundle, timeout=280)
    assert done.returncode == 0, done.stderr
    return bundle

"""A process that trains, dies by SIGKILL at a chosen point, and resumes; run as a script by test_train_kill.

Arguments: steps or calls, the corpus, a folder, as JSON the settings that differ from those below, and for
steps the number of runs.
Torch is imported once; every trainer is a fork of this process, which itself never computes.
Prints one JSON object: {"reference": sha256, "ends": {point: [times killed, sha256]}}.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from charrnn.training import TrainConfig, Trainer
from charrnn.training.callbacks import Callback, Stepped
from charrnn.training.checkpoint import MODEL, list_checkpoints

CONFIG = TrainConfig(
    cell="gru",
    hidden_size=8,
    dropout=0.3,
    batch_size=2,
    bptt=8,
    max_steps=40,
    device="cpu",
    threads=1,
    checkpoint_every=6,
    eval_every=9,
    sample_chars=5,
)
SHORT = {"max_steps": 4, "checkpoint_every": 2, "eval_every": 3}


class KilledAt(Callback):
    """Dies when a step is done, before anything that falls due after it."""

    def __init__(self, step: int) -> None:
        self._step = step

    def stepped(self, stepped: Stepped) -> None:
        if stepped.step == self._step:
            os.kill(os.getpid(), signal.SIGKILL)


def die_at_call(number: int) -> None:
    """Die just before the ``number``-th system call that puts something onto the disk for good."""
    calls = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    for name in ("fsync", "rename", "replace", "mkdir", "rmdir", "unlink"):
        setattr(os, name, counted(getattr(os, name)))


def in_child(work: Callable[[], object]) -> bool:
    """Run in a fork; whether it was killed rather than done."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, -signal.SIGKILL):
        raise SystemExit(f"a trainer ended with {status}")
    return status != 0


def fit(config: TrainConfig, corpus: Path, out: Path, *callbacks: Callback) -> None:
    Trainer(config, callbacks=callbacks).fit(corpus, out=out, resume=True)


def digest(run: Path) -> str:
    last = list_checkpoints(run / "checkpoints")[0]
    return hashlib.sha256((run / "checkpoints" / last / MODEL).read_bytes()).hexdigest()


def killed_at_steps(config: TrainConfig, corpus: Path, folder: Path, num_runs: int) -> dict[str, Any]:
    """Two kills a run, at random steps."""
    rng = random.Random(20)
    ends: dict[str, Any] = {}
    for _ in range(num_runs):
        steps, run = sorted(rng.sample(range(1, 41), 2)), folder / "run"
        kills = sum(
            in_child(lambda step=step, run=run: fit(config, corpus, run, KilledAt(step))) for step in steps
        )
        in_child(lambda run=run: fit(config, corpus, run))
        ends[str(steps)] = [kills, digest(run)]
        shutil.rmtree(run)
    in_child(lambda: fit(config, corpus, folder / "whole"))
    return {"reference": digest(folder / "whole"), "ends": ends}


def killed_at_calls(config: TrainConfig, corpus: Path, folder: Path, num_runs: int) -> dict[str, Any]:
    """One kill a run, at every call there is, one after another, however many."""
    config = config.replace(**SHORT)
    ends: dict[str, Any] = {}
    for number in range(1, 1000):
        run = folder / "run"
        was_killed = in_child(lambda number=number, run=run: (die_at_call(number), fit(config, corpus, run)))
        if not was_killed:
            break
        in_child(lambda run=run: fit(config, corpus, run))
        ends[str(number)] = [1, digest(run)]
        shutil.rmtree(run)
    return {"reference": digest(folder / "run"), "ends": ends}


if __name__ == "__main__":
    cases = {"steps": killed_at_steps, "calls": killed_at_calls}
    case, corpus, folder, changes, num_runs = sys.argv[1:]
    found = cases[case](CONFIG.replace(**json.loads(changes)), Path(corpus), Path(folder), int(num_runs))
    print(json.dumps(found))

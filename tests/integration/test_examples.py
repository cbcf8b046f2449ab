"""Every example runs as it stands, and the essay's "hello" gives the figure's numbers."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs(path: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, path], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_hello_is_learnt_by_remembering() -> None:
    path = Path(__file__).parents[2] / "examples/hello.py"
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert not lines[0].endswith("it says e, l, l, o")
    assert lines[-2].endswith("after h, e, l, l it says e, l, l, o")
    assert lines[-1] == "every next letter is right"


# The figure of the essay's "hello": outputs after h, e, l, l for h, e, l, o; the right one is next.
OUTPUTS = [[1.0, 2.2, -3.0, 4.1], [0.5, 0.3, -1.0, 1.2], [0.1, 0.5, 1.9, -1.1], [0.2, -1.5, -0.1, 2.2]]
TARGETS = [1, 2, 2, 3]
# By hand, to four places: e^1.0 = 2.7183, e^2.2 = 9.0250, e^-3.0 = 0.0498, e^4.1 = 60.3403, sum 72.1334.
PROBABILITIES = [
    [0.0377, 0.1251, 0.0007, 0.8365],
    [0.2466, 0.2019, 0.0550, 0.4965],
    [0.1131, 0.1687, 0.6841, 0.0341],
    [0.1074, 0.0196, 0.0796, 0.7935],
]
# -ln of the right one of each: e after h is not likely yet, o after the second l already is.
NATS = [2.0785, 2.9001, 0.3796, 0.2314]


def test_the_numbers_of_the_figure() -> None:
    outputs = torch.tensor(OUTPUTS, dtype=torch.float64)  # (T, V)
    targets = torch.tensor(TARGETS)  # (T,)
    probs = functional.softmax(outputs, dim=1)
    assert probs.tolist() == [pytest.approx(row, abs=6e-5) for row in PROBABILITIES]
    nats = functional.cross_entropy(outputs, targets, reduction="none")
    assert nats.tolist() == pytest.approx(NATS, abs=6e-5)
    for row, target, expected in zip(OUTPUTS, TARGETS, NATS, strict=True):
        assert math.log(sum(map(math.exp, row))) - row[target] == pytest.approx(expected, abs=6e-5)
    # The loss goes down where the right letter's output goes up: its gradient is softmax less target.
    outputs.requires_grad_()
    functional.cross_entropy(outputs, targets, reduction="sum").backward()  # type: ignore[no-untyped-call]
    assert outputs.grad is not None
    assert torch.allclose(outputs.grad, probs - functional.one_hot(targets, 4))

"""The benches that a test can afford run, and end with their JSON line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHES = Path(__file__).parents[2] / "benches"


def bench(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, BENCHES / name, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, and it would be measured")
def test_without_a_gpu_it_says_so() -> None:
    assert bench("gpu_batch.py") == "no NVIDIA GPU that torch can use: nothing was measured\n"


def test_the_gpu_bench_measures_every_kind_in_every_dtype() -> None:
    out = bench("gpu_batch.py", "--device", "cpu", "--batches", "1", "--hidden-size", "8")
    found = json.loads(out.splitlines()[-1])
    kinds = [(row["kind"], row["dtype"]) for row in found["rows"]]
    assert kinds == [
        (kind, dtype)
        for dtype in ("float32", "bfloat16", "float16")
        for kind in ("charrnn", "stack", "layers")
    ]
    float32 = found["rows"][:3]
    assert all(row["ms"] > 0 and row["of_stack_float32"] > 0 for row in float32)
    assert all(row.keys() & {"ms", "error"} for row in found["rows"])  # not every CPU has the smaller ones

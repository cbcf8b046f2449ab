"""From the command to the first step of training, in fresh processes: ``python benches/startup.py``.

Prints medians of five and their ratio to loading torch, which is most of it; then one JSON line. Run it on an
otherwise idle machine, twice: the first run fills the caches of the disk.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

NUM_RUNS = 5
LIMIT_S = 3.0
STEP = "charrnn train, first step"
SIZE = ["--max-steps", "1", "--batch-size", "4", "--bptt", "50", "--sample-chars", "1"]


def seconds_to_line(command: Sequence[str]) -> float:
    """From starting a process until it says its first line on stderr."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.readline()
        return time.perf_counter() - began


def seconds_to_step(text: Path, run: Path) -> float:
    """From starting ``charrnn train`` until its first step is in the run's diary."""
    command = [sys.executable, "-m", "charrnn", "train", str(text), "--out", str(run), *SIZE]
    diary, began = run / "metrics.jsonl", time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if diary.exists() and diary.stat().st_size:
                return time.perf_counter() - began
            time.sleep(0.002)
    raise SystemExit(f"{' '.join(command)} ended without a step")


def measure() -> dict[str, float]:
    """Median seconds of each, taken in turns, after a round that is not counted."""
    say = "import sys; sys.stderr.write('ready\\n')"
    lines = {
        "python": [sys.executable, "-c", say],
        "import torch": [sys.executable, "-c", f"import torch; {say}"],
        "import charrnn": [sys.executable, "-c", f"import charrnn; {say}"],
    }
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text("to be or not to be, that is the question\n" * 250)
        for number in range(NUM_RUNS + 1):
            took = {name: seconds_to_line(command) for name, command in lines.items()}
            rounds.append(took | {STEP: seconds_to_step(text, Path(folder) / f"run-{number}")})
    return {name: statistics.median(each[name] for each in rounds[1:]) for name in rounds[0]}


def main() -> None:
    """Print the table, then the JSON line."""
    medians = measure()
    torch_s = medians["import torch"]
    for name, seconds in medians.items():
        print(f"{name:<26} {seconds:6.2f} s {seconds / torch_s:6.2f} of import torch")
    first_step = medians[STEP]
    print(f"limit {LIMIT_S:g} s: {'kept' if first_step < LIMIT_S else 'not kept'}")
    print(json.dumps({"bench": "startup", "seconds": medians, "ratio": first_step / torch_s}))


if __name__ == "__main__":
    main()

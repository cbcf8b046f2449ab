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
from collections.abc import Iterator, Sequence
from pathlib import Path

NUM_RUNS = 5
LIMIT_S = 3.0
SIZE = ["--max-steps", "1", "--batch-size", "4", "--bptt", "50", "--sample-chars", "1"]


def seconds_to_line(command: Sequence[str], start: str) -> float:
    """From starting a process until it says a line with this start, on stderr."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        took = next((time.perf_counter() - began for line in process.stderr if line.startswith(start)), None)
        rest = process.stderr.read()
    if took is None:
        raise SystemExit(f"{' '.join(command)} ended without {start!r}: {rest}")
    return took


def commands(folder: Path) -> Iterator[tuple[str, list[str], str]]:
    """Name, command and the start of the line that ends the measurement; endless, with fresh run folders."""
    text = folder / "text.txt"
    text.write_text("to be or not to be, that is the question\n" * 250)
    say = "import sys; sys.stderr.write('ready\\n')"
    number = 0
    while True:
        number += 1
        train = ["-m", "charrnn", "train", str(text), "--out", str(folder / f"run-{number}"), *SIZE]
        yield "python", [sys.executable, "-c", say], "ready"
        yield "import torch", [sys.executable, "-c", f"import torch; {say}"], "ready"
        yield "import charrnn", [sys.executable, "-c", f"import charrnn; {say}"], "ready"
        yield "charrnn train, first step", [sys.executable, *train], "step 1:"


def measure() -> dict[str, float]:
    """Median seconds of each, taken in turns, after a round that is not counted."""
    took: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        turns = commands(Path(folder))
        for round_ in range(NUM_RUNS + 1):
            for name, command, start in (next(turns) for _ in range(4)):
                seconds = seconds_to_line(command, start)
                if round_:
                    took.setdefault(name, []).append(seconds)
    return {name: statistics.median(each) for name, each in took.items()}


def main() -> None:
    """Print the table, then the JSON line."""
    medians = measure()
    torch_s = medians["import torch"]
    for name, seconds in medians.items():
        print(f"{name:<26} {seconds:6.2f} s {seconds / torch_s:6.2f} of import torch")
    first_step = medians["charrnn train, first step"]
    print(f"limit {LIMIT_S:g} s: {'kept' if first_step < LIMIT_S else 'not kept'}")
    print(json.dumps({"bench": "startup", "seconds": medians, "ratio": first_step / torch_s}))


if __name__ == "__main__":
    main()

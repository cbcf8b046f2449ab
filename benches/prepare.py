"""How fast a text becomes a run folder: MB/s of one core, and as a ratio to ``sha256sum`` of the same file.

    python benches/prepare.py [--megabytes 256] [--folder DIR] [--split tail] [KIND...]

Texts are made up: ASCII, Cyrillic and Chinese words, and a list of names in document mode. Each is prepared
in its own process, whose greatest resident memory is told too. Seconds are the processor's, user and system,
so that a busy machine does not count. Knows nothing of training.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ALPHABETS = {
    "ascii": range(97, 123),
    "cyrillic": range(0x430, 0x450),
    "chinese": range(0x4E00, 0x4E00 + 3000),
    "names": range(97, 123),
}
_BLOCK_WORDS = 100_000


def make_text(path: Path, alphabet: range, num_bytes: int, space: str) -> None:
    """Write random words of 1 to 9 letters, one block of them again and again."""
    rng = np.random.default_rng(1)
    letters = np.array([chr(code) for code in alphabet])
    lengths = rng.integers(1, 10, _BLOCK_WORDS)
    words = np.split(letters[rng.integers(0, len(letters), lengths.sum())], np.cumsum(lengths)[:-1])
    block = (space.join("".join(word) for word in words) + "\n").encode()
    with open(path, "wb") as file:
        for _ in range(-(-num_bytes // len(block))):
            file.write(block)


def prepare(path: Path, out: Path, split: str, separator: str) -> None:
    """Prepare in this process, and print seconds and MB of memory."""
    from charrnn.training import setup
    from charrnn.training.config import TrainConfig
    from charrnn.training.run_folder import RunFolder
    from charrnn.training.sources import find_source

    config = TrainConfig(split=split, separator=separator)  # type: ignore[arg-type]
    out.mkdir()
    began = time.process_time()
    setup.begin(RunFolder(out), config, setup.look_at(find_source(path), config), {})
    seconds = time.process_time() - began
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def measure(kind: str, folder: Path, megabytes: int, split: str) -> str:
    """One line of the table."""
    path, separator = folder / "text", "\n" if kind == "names" else ""
    make_text(path, ALPHABETS[kind], megabytes * 10**6, separator or " ")
    size = path.stat().st_size / 1e6
    before = children_s()
    subprocess.run(["sha256sum", path], check=True, capture_output=True)
    sha_s = children_s() - before
    command = [
        sys.executable,
        __file__,
        "--prepare",
        folder / "run",
        "--split",
        split,
        "--separator",
        separator,
    ]
    done = subprocess.run([*command, path], check=True, capture_output=True, text=True)
    seconds, memory = map(float, done.stdout.split())
    subprocess.run(["rm", "-r", folder / "run"], check=True)
    speeds = f"{size / seconds:8.0f} {size / sha_s:12.0f} {sha_s / seconds:8.2f}"
    return f"{kind:10} {size:8.0f} {speeds} {memory:8.0f}"


def children_s() -> float:
    """Processor seconds of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print the table, or prepare one text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(ALPHABETS)}; all by default")
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--separator", default="", help=argparse.SUPPRESS)
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--split", default="tail")
    parser.add_argument("--folder", type=Path, help="where the texts are written for the time being")
    given = parser.parse_args()
    if given.prepare:
        prepare(Path(given.kinds[0]), given.prepare, given.split, given.separator)
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(f"{'text':10} {'MB':>8} {'MB/s':>8} {'sha256 MB/s':>12} {'ratio':>8} {'MB RAM':>8}")
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for kind in given.kinds or ALPHABETS:
            print(measure(kind, Path(folder), given.megabytes, given.split), flush=True)


if __name__ == "__main__":
    main()

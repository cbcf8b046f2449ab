"""Training beside a bare torch loop of the same model, batch and bptt: ``python benches/training.py``.

The bare loop is what one writes who needs nothing else: torch.nn.LSTM and Linear, fused AdamW, clipping, the
state carried, no evaluation, no checkpoint, no log, a loss that is read once, at the end. Ours is
``Trainer.fit`` with its diary and callbacks, timed from the first step to the end of the last. Both read the
same text in windows of the same shape. In turns; prints the median ratio of speeds, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from charrnn.training import Callback, TrainConfig, Trainer
from charrnn.training.callbacks import Stepped

SHAPES = {"2x128": 128, "2x512": 512}
BATCH_SIZE, BPTT, VOCAB_SIZE = 32, 100, 65
WARM_STEPS = 3


class Stopwatch(Callback):
    """Seconds from the end of the first steps to the end of the last."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def stepped(self, stepped: Stepped) -> None:
        """Called after every step."""
        self.at.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """Of all but the first ``WARM_STEPS`` steps."""
        return self.at[-1] - self.at[WARM_STEPS - 1]


def write_text(path: Path) -> None:
    """Enough for all steps, of 65 symbols."""
    symbols = [chr(code) for code in range(48, 48 + VOCAB_SIZE)]
    path.write_text("".join(random.Random(1).choices(symbols, k=500_000)))


def ours(text: Path, out: Path, hidden_size: int, num_steps: int) -> float:
    """Seconds of the steps of a training run."""
    watch = Stopwatch()
    config = TrainConfig(hidden_size=hidden_size, batch_size=BATCH_SIZE, bptt=BPTT, max_steps=num_steps)
    Trainer(config.replace(device="cpu", eval_every=10**6), callbacks=[watch]).fit(text, out=out)
    return watch.seconds


class Bare(nn.Module):
    """One-hot in, two layers, logits out."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(VOCAB_SIZE, hidden_size, 2, batch_first=True)
        self.head = nn.Linear(hidden_size, VOCAB_SIZE)


def bare(text: Path, hidden_size: int, num_steps: int) -> float:
    """Seconds of the same steps of a loop of torch."""
    ids = torch.from_numpy(np.frombuffer(text.read_bytes(), np.uint8).astype(np.int64) - 48)
    rows = ids[: len(ids) // BATCH_SIZE * BATCH_SIZE].view(BATCH_SIZE, -1)
    model = Bare(hidden_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, fused=True)
    state: tuple[torch.Tensor, torch.Tensor] | None = None
    began = 0.0
    for step in range(num_steps):
        if step == WARM_STEPS:
            began = time.perf_counter()
        at = step * BPTT % (rows.shape[1] - BPTT - 1)
        inputs, targets = rows[:, at : at + BPTT], rows[:, at + 1 : at + BPTT + 1]
        hidden, state = model.rnn(nn.functional.one_hot(inputs, VOCAB_SIZE).float(), state)
        state = tuple(part.detach() for part in state)  # type: ignore[assignment]
        loss = nn.functional.cross_entropy(model.head(hidden).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    loss.item()
    return time.perf_counter() - began


def compare(text: Path, folder: Path, hidden_size: int, num_steps: int, num_rounds: int) -> dict[str, float]:
    """Medians over rounds in which each runs once, in alternating order."""
    ratios, rates = [], []
    for number in range(num_rounds):
        took = {}
        for name in ("ours", "bare") if number % 2 else ("bare", "ours"):
            out = folder / f"run-{hidden_size}-{number}"
            took[name] = (
                ours(text, out, hidden_size, num_steps)
                if name == "ours"
                else bare(text, hidden_size, num_steps)
            )
        ratios.append(took["bare"] / took["ours"])
        rates.append((num_steps - WARM_STEPS) * BATCH_SIZE * BPTT / took["ours"])
    return {"ratio": statistics.median(ratios), "chars_per_s": statistics.median(rates)}


def main() -> None:
    """Print a line for each shape, then the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4.0, help="about how long each side runs a round")
    given = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_text(folder / "text.txt")
        for shape, hidden_size in SHAPES.items():
            step_s = bare(folder / "text.txt", hidden_size, WARM_STEPS + 5) / 5
            num_steps = WARM_STEPS + max(5, int(given.seconds / step_s))
            found[shape] = compare(folder / "text.txt", folder, hidden_size, num_steps, given.rounds)
            ratio, rate = found[shape]["ratio"], found[shape]["chars_per_s"]
            print(f"{shape}: {ratio:.3f} of a bare torch loop, {rate:,.0f} chars/s", flush=True)
    print(json.dumps({"bench": "training", "threads": torch.get_num_threads(), **found}))


if __name__ == "__main__":
    main()

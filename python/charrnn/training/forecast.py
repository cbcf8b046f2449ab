"""What a run will need and take, said before the first step and again once a few steps were measured.

Memory is an estimate of what torch keeps for the way back; a test
compares it with what torch keeps.
Knows settings, numbers and clocks, not torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from charrnn.training.callbacks import Callback, Stepped
from charrnn.training.config import TrainConfig

# Blocks of rows in torch's recurrent matrices: LSTM i, f, g, o; GRU r, z, n; RNN its one.
NUM_GATES = {"lstm": 4, "gru": 3, "rnn": 1}
# Tensors of (B, T, H) that torch keeps of a layer for the way back, on a CPU; its LSTM has a large workspace.
_KEPT = {"lstm": 17, "gru": 8, "rnn": 2}
# Moments the optimiser keeps of each weight.
_NUM_MOMENTS = {"adamw": 2, "rmsprop": 1, "sgd": 1}
# The first steps are slow: caches are cold. Those after them are measured.
WARM_STEPS, MEASURED_STEPS = 3, 7
_FLOAT_BYTES = 4
GIB = 2**30


def num_parameters(config: TrainConfig, vocab_size: int) -> int:
    """Number of weights of the model that a configuration asks for, all tensors together."""
    hidden, rows = config.hidden_size, NUM_GATES[config.cell] * config.hidden_size
    inputs = config.embedding_dim or vocab_size
    first = rows * (inputs + hidden + 2)
    others = (config.num_layers - 1) * rows * (2 * hidden + 2)
    return config.embedding_dim * vocab_size + first + others + vocab_size * (hidden + 1)


@dataclass(frozen=True)
class Memory:
    """Estimated bytes: weights with their gradients, the optimiser's moments, a window on its way back."""

    weights: int
    optimizer: int
    window: int

    @property
    def total(self) -> int:
        """All together, without torch itself."""
        return self.weights + self.optimizer + self.window

    @classmethod
    def of(cls, config: TrainConfig, vocab_size: int) -> Memory:
        """The estimate for a configuration; every number is counted as a float32."""
        weights = _FLOAT_BYTES * num_parameters(config, vocab_size)
        kept = _KEPT[config.cell] + (2 if config.dropout else 0)  # the mask, and what it left
        inputs = config.embedding_dim or vocab_size
        # Twice the vocabulary: logits and their log-probabilities.
        numbers = inputs + config.num_layers * kept * config.hidden_size + 2 * vocab_size
        num_bytes = _FLOAT_BYTES * config.batch_size * config.bptt * numbers
        return cls(2 * weights, _NUM_MOMENTS[config.optimizer] * weights, num_bytes)

    def __str__(self) -> str:
        parts = {"weights": self.weights, "optimiser": self.optimizer, "a window": self.window}
        told = ", ".join(f"{name} {_size(num_bytes)}" for name, num_bytes in parts.items())
        return f"about {_size(self.total)} ({told})"


@dataclass(frozen=True)
class Facts:
    """What is known before the first step of a process: what is trained on what, from where to where.

    ``sizes`` are the symbols of each part of the split; ``total_steps`` is None while only time limits it.
    """

    path: Path
    config: TrainConfig
    corpus: str
    split: str
    sizes: Mapping[str, int]
    vocab_size: int
    device: str
    threads: int
    step: int
    total_steps: int | None
    steps_per_epoch: int

    @property
    def num_parameters(self) -> int:
        """Number of weights."""
        return num_parameters(self.config, self.vocab_size)

    @property
    def memory(self) -> Memory:
        """What training will take besides torch itself."""
        return Memory.of(self.config, self.vocab_size)

    def epochs(self, steps: float) -> float:
        """Passes over the training part that so many steps are."""
        return steps / self.steps_per_epoch

    def lines(self) -> list[str]:
        """The same for people."""
        config = self.config
        sizes = ", ".join(f"{part} {size:,}" for part, size in self.sizes.items())
        total = "as many as fit"
        if self.total_steps is not None:
            total = f"{self.total_steps:,} ({self.epochs(self.total_steps):.1f} epochs)"
        return [
            f"{config.cell} {config.num_layers}x{config.hidden_size}, {self.num_parameters:,} parameters, "
            f"{self.vocab_size} symbols, {self.device}, {self.threads} threads",
            f"memory: {self.memory}, estimated",
            f"{self.corpus}, split {self.split}: {sizes} {config.unit}s",
            f"steps: {total}, each {config.batch_size} x {config.bptt} {config.unit}s",
        ]


class Forecast(Callback):
    """Says after a few steps how fast they are, and when the run will be through.

    Args:
        note: where the line goes.
        clock: seconds that only go forward.
    """

    def __init__(self, facts: Facts, note: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._facts, self._note, self._clock = facts, note, clock
        self._num_steps, self._num_tokens, self._began = 0, 0, 0.0

    def stepped(self, stepped: Stepped) -> None:
        """Measure, and tell once."""
        self._num_steps += 1
        if self._num_steps == WARM_STEPS:
            self._began = self._clock()
        if not WARM_STEPS < self._num_steps <= WARM_STEPS + MEASURED_STEPS:
            return
        self._num_tokens += stepped.num_tokens
        if self._num_steps == WARM_STEPS + MEASURED_STEPS:
            seconds = self._clock() - self._began
            if seconds > 0:
                self._note(self._line(stepped, seconds))

    def _line(self, stepped: Stepped, seconds: float) -> str:
        facts, step_s = self._facts, seconds / MEASURED_STEPS
        pace = f"forecast: {self._num_tokens / seconds:,.0f} {facts.config.unit}s/s"
        minutes = facts.config.max_minutes
        left = None if stepped.total_steps is None else (stepped.total_steps - stepped.step) * step_s
        if minutes is not None and (left is None or left > minutes * 60):
            steps = minutes * 60 / step_s
            return f"{pace}; {minutes:g} min are about {steps:,.0f} steps, {facts.epochs(steps):.1f} epochs"
        assert left is not None
        assert stepped.total_steps is not None
        epochs = facts.epochs(stepped.total_steps)
        return f"{pace}; {span(left)} to step {stepped.total_steps:,}, after {epochs:.1f} epochs"


def span(seconds: float) -> str:
    """``h:mm:ss`` or ``m:ss``."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def shortage(config: TrainConfig, vocab_size: int, free: int | None) -> str | None:
    """What to say where ``free`` bytes will not do; nothing where they will, or are not known."""
    memory = Memory.of(config, vocab_size)
    if free is None or memory.total <= free:
        return None
    return (
        f"warning: training takes {memory}, and {_size(free)} are free: "
        "give a smaller --batch-size, --bptt or --hidden-size"
    )


def free_memory() -> int | None:
    """Bytes of main memory that a process may still take, where the system tells."""
    known = [_available(Path("/proc/meminfo")), _below_limit(Path("/sys/fs/cgroup"))]
    return min((number for number in known if number is not None), default=None)


def _available(path: Path) -> int | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    found = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return next((int(kib) * 1024 for kib in found), None)


def _below_limit(folder: Path) -> int | None:
    """What a container's limit leaves; version 2 of control groups, whose files are absent elsewhere."""
    try:
        return max(0, int((folder / "memory.max").read_text()) - int((folder / "memory.current").read_text()))
    except (OSError, ValueError):  # "max": no limit
        return None


def _size(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.1f} GiB" if num_bytes >= GIB else f"{num_bytes / 2**20:.1f} MiB"

"""What a training run is asked to do: one frozen, validated value that is stored in the run folder.

Knows neither torch nor the text.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args, get_type_hints

from charrnn.errors import ConfigError
from charrnn.vocab import Unit

Cell = Literal["lstm", "gru", "rnn"]
Optimizer = Literal["adamw", "rmsprop", "sgd"]
Schedule = Literal["cosine", "constant", "step"]
SplitName = Literal["tail", "interleaved", "nanogpt", "none"]
OnNan = Literal["skip", "stop", "rollback"]
Dtype = Literal["float32", "bfloat16", "float16"]
EncodingErrors = Literal["strict", "replace"]

DEFAULT_EPOCHS = 20

# Settings that may change when a run is resumed; all others decide what the weights become.
RESUMABLE = frozenset({"threads", "device", "checkpoint_every", "strict_save"})

# field: (least, most)
RANGES: dict[str, tuple[float, float]] = {
    "num_layers": (1, 16),
    "hidden_size": (1, 16384),
    "embedding_dim": (0, 16384),
    "dropout": (0.0, 0.95),
    "batch_size": (1, 65536),
    "bptt": (1, 65536),
    "max_steps": (1, 10**12),
    "max_epochs": (1, 10**9),
    "max_minutes": (0.01, 10**7),
    "lr": (1e-12, 1000.0),
    "warmup_steps": (0, 10**9),
    "decay": (1e-6, 1.0),
    "decay_after": (0, 10**9),
    "weight_decay": (0.0, 100.0),
    "beta1": (0.0, 0.99999),
    "beta2": (0.0, 0.99999),
    "clip_norm": (1e-6, 1e9),
    "patience": (1, 10**9),
    "max_skipped": (1, 10**9),
    "seed": (0, 2**63 - 1),
    "threads": (1, 1024),
    "checkpoint_every": (1, 10**12),
    "eval_every": (1, 10**12),
    "sample_chars": (1, 1_000_000),
}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of a training run. Impossible values raise ConfigError when it is made.

    Args:
        cell, num_layers, hidden_size: the recurrent net.
        embedding_dim: width of a learnt input embedding; 0 feeds 1-of-k vectors.
        dropout: share of outputs dropped between layers and before the head.
        batch_size: number of contiguous streams the training text is cut into.
        bptt: characters the gradient is carried back through.
        max_steps, max_epochs, max_minutes: when to stop; ``max_minutes`` may stand beside one of the others.
            With none of them, 20 epochs.
        optimizer: ``adamw``, ``rmsprop`` (as in Karpathy's char-rnn) or ``sgd``.
        lr, schedule, warmup_steps: peak learning rate and its course after the warm-up, which takes at most a
            tenth of a run whose length is known: half a ``cosine`` down to 0, ``constant``, or a ``step`` an
            epoch, times ``decay``, after ``decay_after`` epochs.
        weight_decay: share of a weight, times the rate, taken off each step; biases are not decayed.
        beta1: memory of the mean gradient (adamw) or momentum (sgd).
        beta2: memory of the squared gradient (adamw, rmsprop).
        clip_norm: largest norm of the whole gradient.
        patience: evaluations in a row without a better one after which training stops; None never stops.
        on_nan: what follows a step whose loss or gradient is not finite, and which is never applied:
            ``skip`` goes on, ``rollback`` goes back to the last checkpoint, ``stop`` ends.
        max_skipped: so many of them in a row end the run in any case.
        strict_save: end when a checkpoint cannot be written; otherwise warn and go on.
        split: ``tail`` keeps the last 5 % of the text for test and the 5 % before for validation,
            ``interleaved`` the end of each of 50 pieces, as char-rnn does, ``nanogpt`` the last 10 % for
            validation, ``none`` trains on everything.
        unit: what a symbol is, a character or a byte.
        separator: what stands between documents; each is learnt from the zero state, with an end symbol.
            Empty: the text is one.
        encoding_errors: ``strict`` refuses a text that is not UTF-8, ``replace`` reads U+FFFD there.
        init_from: a run or bundle whose weights are the first ones, symbol by symbol.
        seed: of weights, dropout, the order of documents and samples.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: of the products; weights, loss and optimiser stay in float32.
        compile: have torch compile the model.
        deterministic: let torch refuse what is not reproducible on a GPU.
        threads: CPU threads; None leaves the choice to torch.
        checkpoint_every, eval_every: in steps; ``eval_every`` None is once an epoch, but 250 to 5000 steps.
        sample_at: steps after which a sample of ``sample_chars`` characters is kept.
    """

    cell: Cell = "lstm"
    num_layers: int = 2
    hidden_size: int = 128
    embedding_dim: int = 0
    dropout: float = 0.0
    batch_size: int = 32
    bptt: int = 100
    max_steps: int | None = None
    max_epochs: int | None = None
    max_minutes: float | None = None
    optimizer: Optimizer = "adamw"
    lr: float = 4e-3
    schedule: Schedule = "cosine"
    warmup_steps: int = 100
    decay: float = 0.97
    decay_after: int = 10
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    clip_norm: float = 1.0
    patience: int | None = None
    on_nan: OnNan = "skip"
    max_skipped: int = 3
    strict_save: bool = False
    split: SplitName = "tail"
    unit: Unit = "char"
    separator: str = ""
    encoding_errors: EncodingErrors = "strict"
    init_from: str | None = None
    seed: int = 1
    device: str = "auto"
    dtype: Dtype = "float32"
    compile: bool = False
    deterministic: bool = False
    threads: int | None = None
    checkpoint_every: int = 500
    eval_every: int | None = None
    sample_at: tuple[int, ...] = ()
    sample_chars: int = 500

    preset_name: ClassVar[str | None] = None
    """Of a value that ``preset`` made: where its settings come from. It is no setting."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_type(field.name, getattr(self, field.name))
        for name, (least, most) in RANGES.items():
            _check_range(name, getattr(self, name), least, most)
        if self.max_steps is not None and self.max_epochs is not None:
            raise ConfigError(
                f"max_steps {self.max_steps} and max_epochs {self.max_epochs} exclude each other: give one"
            )
        if any(step < 1 for step in self.sample_at):
            raise ConfigError(f"sample_at holds step {min(self.sample_at)}: steps count from 1, leave it out")
        if not _is_device(self.device):
            raise ConfigError(f"device is {self.device!r}: give auto, cpu, cuda or cuda:N")

    def to_json(self) -> dict[str, Any]:
        """A dictionary that JSON keeps exactly."""
        return dataclasses.asdict(self) | {"sample_at": list(self.sample_at)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TrainConfig:
        """Undoes ``to_json``.

        Raises:
            ConfigError: an unknown setting or an impossible value.
        """
        unknown = sorted(set(value) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise ConfigError(f"unknown setting {unknown[0]!r}: it may come from another version of charrnn")
        return cls(**{**value, "sample_at": tuple(value.get("sample_at", ()))})

    @classmethod
    def preset(cls, name: str, **changes: Any) -> TrainConfig:
        """The settings of a preset, with ``changes``.

        Raises:
            ConfigError: there is no such preset, or an impossible value.
        """
        from charrnn.training.presets import read

        return cls(**read(name).with_changes(changes))._named(name)

    def replace(self, **changes: Any) -> TrainConfig:
        """A copy with some settings changed."""
        return dataclasses.replace(self, **changes)._named(self.preset_name)

    def _named(self, preset_name: str | None) -> TrainConfig:
        object.__setattr__(self, "preset_name", preset_name)
        return self

    def check_resumes(self, stored: TrainConfig) -> None:
        """Compare with the settings of the run that is to be continued.

        Raises:
            ConfigError: names the first setting that differs and may not.
        """
        for field in dataclasses.fields(self):
            ours, theirs = getattr(self, field.name), getattr(stored, field.name)
            if field.name not in RESUMABLE and ours != theirs:
                raise ConfigError(
                    f"{field.name} is {theirs!r} in the run and {ours!r} was given: "
                    "leave it out to resume, or start a new run with another --out"
                )


_HINTS = get_type_hints(TrainConfig)


def _check_type(name: str, value: object) -> None:
    hint = _HINTS[name]
    choices = get_args(hint)
    if choices and all(isinstance(choice, str) for choice in choices):
        if value not in choices:
            raise ConfigError(f"{name} is {value!r}: give one of {', '.join(choices)}")
        return
    if name == "sample_at":
        is_right = isinstance(value, tuple) and all(type(step) is int for step in value)
    elif value is None:
        is_right = type(None) in choices
    elif float in (hint, *choices):
        is_right = type(value) in (int, float)
    else:
        is_right = type(value) in (hint, *choices)
    if not is_right:
        raise ConfigError(f"{name} is {value!r}: give a value of type {getattr(hint, '__name__', hint)}")


def _check_range(name: str, value: float | None, least: float, most: float) -> None:
    if value is not None and not (math.isfinite(value) and least <= value <= most):
        raise ConfigError(f"{name} is {value!r}: give a value from {_exact(least)} to {_exact(most)}")


def _exact(limit: float) -> str:
    """Whole numbers with all their digits."""
    return str(limit) if isinstance(limit, int) else f"{limit:g}"


def _is_device(name: str) -> bool:
    return name in ("auto", "cpu", "cuda") or re.fullmatch(r"cuda:[0-9]{1,4}", name) is not None

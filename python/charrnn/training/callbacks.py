"""What a training run tells whoever listens, and what becomes of a listener that fails.

    class Target(Callback):
        def started(self, trainer, facts):
            self.trainer = trainer

        def evaluated(self, evaluated):
            if evaluated.loss.bpc < 2.0:
                self.trainer.stop("2 bits per character are enough")

    Trainer(config, callbacks=[Target()]).fit("book.txt", out="runs/book")

Knows nothing of how training works: the trainer and its loop call, in the order of the methods below.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrnn.errors import CallbackError, CharrnnError

if TYPE_CHECKING:
    from charrnn.training.evaluation import Loss
    from charrnn.training.forecast import Facts
    from charrnn.training.trainer import Trainer, TrainResult


@dataclass(frozen=True)
class Stepped:
    """A step over ``num_tokens`` symbols has been made.

    ``total_steps`` are planned, if that is known yet; ``nats`` is the loss of the step's window, ``lr`` its
    rate. A step that was not ``is_applied`` had a number that is not finite and changed nothing.
    """

    step: int
    total_steps: int | None
    nats: float
    num_tokens: int
    lr: float
    gradient_norm: float
    is_applied: bool = True


@dataclass(frozen=True)
class Evaluated:
    """The validation part of the split named ``split`` has been predicted; was no loss before it lower?"""

    step: int
    split: str
    loss: Loss
    is_best: bool


class Callback:
    """Is told everything and does nothing; override what you need.

    An exception from any method ends training: the run stays as its last checkpoint has it, and ``fit``
    raises CallbackError with the exception as its cause, or the exception itself if it is one of charrnn's.
    """

    def started(self, trainer: Trainer, facts: Facts) -> None:
        """Training is about to begin or to go on; ``trainer.stop(reason)`` ends it from then on."""

    def note(self, text: str) -> None:
        """A line for people; the first may come before ``started``."""

    def stepped(self, stepped: Stepped) -> None:
        """A step has been made."""

    def evaluated(self, evaluated: Evaluated) -> None:
        """The validation part has been predicted."""

    def sampled(self, step: int, text: str) -> None:
        """A sample has been drawn from the model as it is after ``step`` steps."""

    def saved(self, step: int, path: Path) -> None:
        """The checkpoint in the folder ``path`` is complete."""

    def ended(self, result: TrainResult) -> None:
        """Training has ended as planned or asked; not told after an error."""

    def close(self) -> None:
        """No more will come, however training ended."""


class Callbacks(Callback):
    """Several as one: each is told in turn.

    Raises:
        CallbackError: one of them failed, with its exception as the cause.
    """

    def __init__(self, members: Iterable[Callback] = ()) -> None:
        self._members = list(members)
        for member in self._members:
            if not isinstance(member, Callback):
                raise TypeError(f"a callback is of type {type(member).__name__}: derive it from Callback")

    def started(self, trainer: Trainer, facts: Facts) -> None:
        """Tell each."""
        self._tell(lambda member: member.started, trainer, facts)

    def note(self, text: str) -> None:
        """Tell each."""
        self._tell(lambda member: member.note, text)

    def stepped(self, stepped: Stepped) -> None:
        """Tell each."""
        self._tell(lambda member: member.stepped, stepped)

    def evaluated(self, evaluated: Evaluated) -> None:
        """Tell each."""
        self._tell(lambda member: member.evaluated, evaluated)

    def sampled(self, step: int, text: str) -> None:
        """Tell each."""
        self._tell(lambda member: member.sampled, step, text)

    def saved(self, step: int, path: Path) -> None:
        """Tell each."""
        self._tell(lambda member: member.saved, step, path)

    def ended(self, result: TrainResult) -> None:
        """Tell each."""
        self._tell(lambda member: member.ended, result)

    def close(self) -> None:
        """Tell each, also those after one that fails."""
        failed: list[CharrnnError] = []
        for member in self._members:
            try:
                _call(member, member.close)
            except CharrnnError as error:
                failed.append(error)
        if failed:
            raise failed[0]

    def _tell(self, method: Callable[[Callback], Callable[..., None]], *told: Any) -> None:
        for member in self._members:
            _call(member, method(member), *told)


def _call(member: Callback, method: Callable[..., None], *told: Any) -> None:
    try:
        method(*told)
    except CharrnnError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.EPIPE:  # nobody reads our output any more
            raise
        what = f"{type(member).__name__}.{method.__name__}"
        reason = f"{type(error).__name__}: {error}"
        raise CallbackError(
            f"callback {what} failed with {reason}; the run stays at its last checkpoint: "
            "repair the callback and go on with --resume"
        ) from error

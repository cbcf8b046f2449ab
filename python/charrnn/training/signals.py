"""Ctrl-C, SIGTERM, SIGHUP and other wishes to stop training: the first is noted, a second signal ends it.

Knows nothing of training.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, TypeAlias

Wish: TypeAlias = signal.Signals | str
"""Why to stop: a signal, or a reason that somebody gave."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignal:
    """While entered, ``received`` holds the first signal, or the reason given, that asked to stop.

    Outside the main thread, where Python allows no handlers, nothing is changed.
    """

    def __init__(self) -> None:
        self.received: Wish | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # nohup wants it to go on
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def ask(self, reason: str) -> None:
        """Ask to stop without a signal; the first reason stands."""
        if self.received is None:
            self.received = reason

    def _note(self, number: int, frame: FrameType | None) -> None:
        if isinstance(self.received, signal.Signals):
            os._exit(128 + number)
        self.received = signal.Signals(number)

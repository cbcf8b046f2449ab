"""When a client asks again for what a server lost, and when it gives up."""

from __future__ import annotations

import random
import time

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0


class Patience:
    """How long to wait before asking again, and until when: a while after something new last came.

    Args:
        timeout: seconds for all of it; ``None`` for no limit.
        resume_s: seconds without anything new after which no more is asked.
    """

    def __init__(self, timeout: float | None, resume_s: float) -> None:
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._resume_s = resume_s
        self._give_up_at, self._pause = 0.0, 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds that a call may still take."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def renew(self) -> None:
        """Something new came."""
        self._pause = 0.0

    def extend(self) -> None:
        """Nobody was kept waiting so far."""
        self._give_up_at = time.monotonic() + self._resume_s

    def pause(self) -> float | None:
        """Seconds to wait before the next try; ``None``: there is to be none."""
        now = time.monotonic()
        if not self._pause:
            self._give_up_at, self._pause = now + self._resume_s, FIRST_PAUSE_S
        left = self.left_s
        if now >= self._give_up_at or left == 0:
            return None
        # Clients that lost one server must not fall upon the next all at once.
        pause = self._pause * random.uniform(0.5, 1.0)
        self._pause = min(2 * self._pause, LONGEST_PAUSE_S)
        return pause if left is None else min(pause, left)

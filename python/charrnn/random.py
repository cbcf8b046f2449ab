"""Random bits that need no state: the generator that all draws of charrnn come from.

``philox4x32(counter, key)`` is Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers:
As Easy as 1, 2, 3" (SC 2011): four words of 32 random bits for a counter of four words and a key of two, all
of 0 to 2^32 - 1. Known answer, from the authors' Random123: counter ``(0, 0, 0, 0)`` and key ``(0, 0)`` give
``(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8)``. Knows nothing of seeds and positions.
"""

from __future__ import annotations

from charrnn._native import philox4x32

__all__ = ["philox4x32"]

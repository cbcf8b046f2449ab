"""The sampler's rules again, slowly and obviously: plain Python integers and float64.

Knows nothing of the package. Where the fast kernel and this file disagree outside a 2^-30 band around the
boundary of two tokens, the kernel is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MASK32 = 0xFFFFFFFF
WEIGHT_ONE = 2.0**46


@dataclass(frozen=True)
class Rules:
    """The sampling parameters this oracle knows."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0


def philox4x32(counter: Sequence[int], key: Sequence[int]) -> list[int]:
    """Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3")."""
    x0, x1, x2, x3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product1 = 0xD2511F53 * x0, 0xCD9E8D57 * x2
        x0, x1, x2, x3 = (
            (product1 >> 32) ^ x1 ^ k0,
            product1 & MASK32,
            (product0 >> 32) ^ x3 ^ k1,
            product0 & MASK32,
        )
        k0, k1 = (k0 + 0x9E3779B9) & MASK32, (k1 + 0xBB67AE85) & MASK32
    return [x0, x1, x2, x3]


def uniform64(seed: int, position: int, stream: int = 0, purpose: int = 0) -> int:
    """The 64 random bits of one draw."""
    words = philox4x32(
        [position & MASK32, position >> 32, stream, purpose],
        [seed & MASK32, seed >> 32],
    )
    return words[0] | words[1] << 32


def weights(logits: Sequence[float], rules: Rules) -> list[int]:
    """The integer weight of every token once all filters have been applied; no filter, no sort is clever."""
    best = max(logits)
    keep = set(range(len(logits)))
    if rules.top_k:
        keep = set(sorted(keep, key=lambda i: (-logits[i], i))[: rules.top_k])
    w = [
        math.trunc(math.exp((value - best) / rules.temperature) * WEIGHT_ONE) if i in keep else 0
        for i, value in enumerate(logits)
    ]
    if rules.top_p < 1.0:
        total, mass, kept = sum(w), 0, set()
        for i in sorted(range(len(w)), key=lambda i: (-w[i], i)):
            kept.add(i)
            mass += w[i]
            if mass >= rules.top_p * total:
                break
        w = [value if i in kept else 0 for i, value in enumerate(w)]
    if rules.min_p > 0.0:
        top = max(w)
        w = [value if value >= rules.min_p * top else 0 for value in w]
    return w


def draw(logits: Sequence[float], rules: Rules, bits: int) -> tuple[int, float]:
    """The token that 64 random bits choose, and the draw's distance from a boundary, a share of the mass."""
    if rules.temperature == 0.0:
        return max(range(len(logits)), key=lambda i: (logits[i], -i)), 1.0
    w = weights(logits, rules)
    total = sum(w)
    target = bits * total >> 64
    below = 0
    for token, weight in enumerate(w):
        if target < below + weight:
            return token, min(target - below, below + weight - target) / total
        below += weight
    raise AssertionError("the weights of a row with a candidate have a positive sum")

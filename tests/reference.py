"""The sampler's rules again, slowly and obviously: plain Python integers and float64.

Knows nothing of the package. Where the fast kernel and this file disagree outside a 2^-30 band around the
boundary of two tokens, the kernel is wrong.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

MASK32 = 0xFFFFFFFF
WEIGHT_ONE = 2.0**46


@dataclass(frozen=True)
class Rules:
    """The sampling parameters this oracle knows."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    penalty_window: int = 64
    no_repeat_ngram_size: int = 0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    allowed: Sequence[int] | None = None


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


def float32(value: float) -> float:
    """The nearest float32; the largest where there is none."""
    largest = 3.4028234663852886e38
    return float(struct.unpack("f", struct.pack("f", max(-largest, min(largest, value))))[0])


def adjusted(logits: Sequence[float], rules: Rules, history: Sequence[int] = ()) -> list[float]:
    """The logits after bias, bans and penalties, rounded to float32 after each rule."""
    row = list(logits)
    for i, bias in rules.logit_bias.items():
        if bias == -math.inf:
            row[i] = bias
        elif math.isfinite(row[i]):
            row[i] = float32(row[i] + bias)
    if rules.allowed is not None:
        row = [value if i in rules.allowed else -math.inf for i, value in enumerate(row)]
    recent = list(history)[-rules.penalty_window :] if rules.penalty_window else []
    for i in set(recent):
        if math.isfinite(row[i]):
            value = row[i] / rules.repetition_penalty if row[i] > 0 else row[i] * rules.repetition_penalty
            row[i] = float32(value - (rules.frequency_penalty * recent.count(i) + rules.presence_penalty))
    return _without_repeats(row, recent, rules.no_repeat_ngram_size)


def _without_repeats(row: list[float], recent: list[int], size: int) -> list[float]:
    """Without the tokens that would complete a run of ``size`` a second time, unless none is left."""
    if size == 0 or len(recent) < size - 1:
        return row
    runs = {tuple(recent[i : i + size]) for i in range(len(recent) - size + 1)}
    begun = tuple(recent[len(recent) - size + 1 :])
    left = [-math.inf if (*begun, i) in runs else value for i, value in enumerate(row)]
    return left if max(left) > -math.inf else row


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
        order = sorted(range(len(w)), key=lambda i: (-w[i], i))
        w = _first_of(order, w, rules.top_p)
    if rules.min_p > 0.0:
        top = max(w)
        w = [value if value >= rules.min_p * top else 0 for value in w]
    if rules.typical_p < 1.0:
        w = _first_of(_by_surprise(w, logits, rules), w, rules.typical_p)
    return w


def _first_of(order: Sequence[int], w: list[int], p: float) -> list[int]:
    """The weights of the first tokens in order whose mass reaches a share of the whole; 0 for the others."""
    total, mass, kept = sum(w), 0, set()
    for i in order:
        kept.add(i)
        mass += w[i]
        if mass >= p * total:
            break
    return [value if i in kept else 0 for i, value in enumerate(w)]


def _by_surprise(w: list[int], logits: Sequence[float], rules: Rules) -> list[int]:
    """Tokens from the one whose surprise is nearest to the mean, Meister et al. 2022; ties by id."""
    best, total = max(logits), sum(w)
    kept = [i for i in range(len(w)) if w[i]]
    y = {i: (logits[i] - best) / rules.temperature for i in kept}
    mean = math.fsum(w[i] / total * y[i] for i in kept)
    return sorted(kept, key=lambda i: (abs(y[i] - mean), i))


def draw(logits: Sequence[float], rules: Rules, bits: int, history: Sequence[int] = ()) -> tuple[int, float]:
    """The token that 64 random bits choose, and the draw's distance from a boundary, a share of the mass."""
    row = adjusted(logits, rules, history)
    if rules.temperature == 0.0:
        return max(range(len(row)), key=lambda i: (row[i], -i)), 1.0
    w = weights(row, rules)
    total = sum(w)
    target = bits * total >> 64
    below = 0
    for token, weight in enumerate(w):
        if target < below + weight:
            return token, min(target - below, below + weight - target) / total
        below += weight
    raise AssertionError("the weights of a row with a candidate have a positive sum")


def logprob(logits: Sequence[float], rules: Rules, token: int, *, mode: str) -> float:
    """Natural logarithm of the probability of ``token``, of adjusted ``logits`` if ``mode`` is processed."""
    if mode == "raw":
        best = max(logits)
        return logits[token] - best - math.log(math.fsum(math.exp(value - best) for value in logits))
    if rules.temperature == 0.0:
        return 0.0
    w = weights(logits, rules)
    return math.log(w[token] / sum(w))

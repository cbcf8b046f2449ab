"""Makes sampler.json: draws of the slow reference, which Rust and Python tests both have to reproduce.

``python -m tests.golden.make`` writes it again; a test checks that it is what this file makes.
"""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

from tests.reference import Rules, draw, uniform64

PATH = Path(__file__).with_name("sampler.json")
BAND = 2.0**-30
SETTINGS = [
    Rules(),
    Rules(temperature=0.0),
    Rules(temperature=0.5),
    Rules(temperature=3.0),
    Rules(top_k=1),
    Rules(top_k=7),
    Rules(top_p=0.0),
    Rules(top_p=0.8),
    Rules(min_p=0.1),
    Rules(temperature=1.3, top_k=20, top_p=0.9, min_p=0.01),
]


def float32(value: float) -> float:
    """The nearest float32, so that a logit is the same number on both sides."""
    return struct.unpack("f", struct.pack("f", value))[0]


def make() -> str:
    """The vectors as JSON, one a line; draws near a boundary are left out."""
    rng, lines = random.Random(20150521), []
    for number in range(300):
        vocab_size = rng.choice([1, 2, 5, 65, 96])
        scale = rng.choice([0.0, 1.0, 8.0])
        logits = [float32(rng.gauss(0.0, scale)) for _ in range(vocab_size)]
        rules, seed, position = SETTINGS[number % len(SETTINGS)], rng.getrandbits(64), rng.getrandbits(40)
        token, margin = draw(logits, rules, uniform64(seed, position))
        if margin > BAND:
            case = {"logits": logits, "seed": seed, "position": position, "token": token, **vars(rules)}
            lines.append(json.dumps(case))
    return "[\n" + ",\n".join(lines) + "\n]\n"


if __name__ == "__main__":
    PATH.write_text(make())

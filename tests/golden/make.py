"""Makes sampler.json: draws of the slow reference, which Rust and Python tests both have to reproduce.

``python -m tests.golden.make`` writes it again; a test checks that it is what this file makes.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from tests.reference import Rules, draw, float32, uniform64

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
    Rules(typical_p=0.7),
    Rules(temperature=0.8, top_k=30, typical_p=0.2),
    Rules(repetition_penalty=1.7, penalty_window=12),
    Rules(frequency_penalty=0.9, presence_penalty=-0.4),
    Rules(no_repeat_ngram_size=1, penalty_window=3),
    Rules(temperature=0.0, no_repeat_ngram_size=2),
    Rules(logit_bias={0: 2.5}, allowed=[0]),
]


def make() -> str:
    """The vectors as JSON, one a line; draws near a boundary are left out."""
    rng, lines = random.Random(20150521), []
    for number in range(510):
        vocab_size = rng.choice([1, 2, 5, 65, 96])
        scale = rng.choice([0.0, 1.0, 8.0])
        logits = [float32(rng.gauss(0.0, scale)) for _ in range(vocab_size)]
        rules, seed, position = SETTINGS[number % len(SETTINGS)], rng.getrandbits(64), rng.getrandbits(40)
        history = [rng.randrange(vocab_size) for _ in range(rng.choice([0, 5, 100]))]
        token, margin = draw(logits, rules, uniform64(seed, position), history)
        if margin > BAND:
            place = {"seed": seed, "position": position, "history": history}
            lines.append(json.dumps({"logits": logits, **place, "token": token, **vars(rules)}))
    return "[\n" + ",\n".join(lines) + "\n]\n"


if __name__ == "__main__":
    PATH.write_text(make())

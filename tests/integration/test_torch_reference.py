"""The torch step loop with the slow sampler makes the same text as the engine, in fp32.

The two compute logits in a different order, so they may differ by float32 rounding: up to TOLERANCE in a
logit. A draw may therefore differ only that close to the boundary of two tokens; the torch loop then goes on
with the engine's token, so that every position of the text is compared.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from charrnn import Bundle, Engine
from charrnn.training import load_run
from tests.reference import Rules, draw, uniform64

TOLERANCE = 1e-3
PROMPT = "The "


@pytest.mark.parametrize(
    "rules", [Rules(temperature=0.8), Rules(1.3, top_k=20, top_p=0.9, min_p=0.01), Rules(0.0)]
)
def test_engine_equals_torch_loop(tiny_run: Path, tiny_bundle: Path, rules: Rules) -> None:
    num_tokens, seed = 400, 7
    with Engine(tiny_bundle, precision="fp32", workers=1) as engine:
        stream = engine.generate(
            PROMPT,
            temperature=rules.temperature,
            top_k=rules.top_k,
            top_p=rules.top_p,
            min_p=rules.min_p,
            seed=seed,
            max_tokens=num_tokens,
        )
        text = stream.read()
    tokens = Bundle.open(tiny_bundle).vocab.encode(text)
    assert _first_unexplained_difference(tiny_run, tokens, rules, seed) is None


def _first_unexplained_difference(run_path: Path, tokens: np.ndarray, rules: Rules, seed: int) -> int | None:
    """Where the torch loop draws another token than ``tokens`` by more than rounding; ``None`` if nowhere."""
    run = load_run(run_path)
    state = run.model.zero_state(1)
    with torch.no_grad():
        for token in run.vocab.encode(PROMPT):
            logits, state = run.model.step(torch.tensor([int(token)]), state)
        for position, token in enumerate(tokens):
            expected, margin = draw(logits[0].double().tolist(), rules, uniform64(seed, position))
            if expected != token and margin >= TOLERANCE:
                return position
            logits, state = run.model.step(torch.tensor([int(token)]), state)
    return None

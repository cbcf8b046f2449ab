"""Text from a model that is being trained, one symbol at a time through its step.

The rules of the draw are the sampler's; the same weights and seed give the text that the engine gives.
"""

from __future__ import annotations

import numpy as np
import torch

from charrnn.errors import DivergedError
from charrnn.sampler import Sampler, SamplingParams
from charrnn.training.model import CharRNN
from charrnn.vocab import Vocab


def start_token(vocab: Vocab) -> int:
    """What an empty prompt begins with: the newline if the vocabulary has it, else token 0."""
    newline = ord("\n")
    return vocab.symbols.index(newline) if newline in vocab.symbols else 0


@torch.inference_mode()
def sample_text(
    model: CharRNN, vocab: Vocab, *, num_tokens: int, seed: int, temperature: float = 1.0, prompt: str = ""
) -> str:
    """``num_tokens`` symbols after ``prompt``, without it.

    Raises:
        RequestError: the prompt holds an unknown symbol, or the temperature is negative.
        DivergedError: the model's logits are not finite.
    """
    was_training = model.training
    model.eval()
    try:
        tokens = _draw(model, vocab, num_tokens, SamplingParams(temperature=temperature, seed=seed), prompt)
    finally:
        model.train(was_training)
    return vocab.decode(tokens)


def _draw(model: CharRNN, vocab: Vocab, num_tokens: int, params: SamplingParams, prompt: str) -> list[int]:
    sampler = Sampler(len(vocab))
    device = model.head.weight.device
    seeds = np.array([params.seed], np.uint64)
    fed = [int(token) for token in vocab.encode(prompt)] or [start_token(vocab)]
    drawn: list[int] = []
    state = model.zero_state(1)
    while len(drawn) < num_tokens:
        for token in fed:
            logits, state = model.step(torch.tensor([token], device=device), state)  # (1, V)
        row = logits.float().cpu().numpy()
        output = sampler.sample(row, params, seeds=seeds, positions=np.array([len(drawn)], np.uint64))
        if output.status[0]:
            raise DivergedError(f"logits are not finite after {len(drawn)} sampled symbols: lower --lr")
        fed = [int(output.tokens[0])]
        drawn += fed
    return drawn

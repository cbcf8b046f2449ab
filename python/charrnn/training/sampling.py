"""Text from a model that is being trained, one symbol at a time through its step.

The rules of the draw are the sampler's; the same weights and seed give the text that the engine gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
    fed = [int(token) for token in vocab.encode(prompt)] or [start_token(vocab)]
    with _resting(model):
        params = SamplingParams(temperature=temperature, seed=seed)
        return vocab.decode(_draw(model, fed, num_tokens, params))


@torch.inference_mode()
def sample_documents(
    model: CharRNN, vocab: Vocab, end_token: int, *, num_tokens: int, seed: int, temperature: float = 1.0
) -> list[str]:
    """Documents of ``num_tokens`` symbols together, ends included; the last may be cut off.

    Document i is what the engine gives as sample i of the seed.

    Raises:
        DivergedError: the model's logits are not finite.
    """
    params = SamplingParams(temperature=temperature, seed=seed)
    documents: list[str] = []
    with _resting(model):
        while num_tokens > 0:
            drawn = _draw(model, [end_token], num_tokens, params, end_token, stream=len(documents))
            num_tokens -= len(drawn)
            documents.append(vocab.decode(drawn[:-1] if drawn[-1] == end_token else drawn))
    return documents


@contextmanager
def _resting(model: CharRNN) -> Iterator[None]:
    """The model without dropout."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _draw(
    model: CharRNN,
    fed: list[int],
    num_tokens: int,
    params: SamplingParams,
    end_token: int | None = None,
    stream: int = 0,
) -> list[int]:
    """At most ``num_tokens`` after the tokens ``fed``, up to ``end_token``, which is the last if it comes."""
    sampler = Sampler(model.shape.vocab_size)
    device = model.head.weight.device
    seeds, streams = np.array([params.seed], np.uint64), np.array([stream], np.uint32)
    drawn: list[int] = []
    state = model.zero_state(1)
    while len(drawn) < num_tokens and not (drawn and drawn[-1] == end_token):
        for token in fed:
            logits, state = model.step(torch.tensor([token], device=device), state)  # (1, V)
        row = logits.float().cpu().numpy()
        positions = np.array([len(drawn)], np.uint64)
        output = sampler.sample(row, params, seeds=seeds, positions=positions, streams=streams)
        if output.status[0]:
            raise DivergedError(f"logits are not finite after {len(drawn)} sampled symbols: lower --lr")
        fed = [int(output.tokens[0])]
        drawn += fed
    return drawn

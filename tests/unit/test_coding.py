"""The arithmetic coder over rows of logits; files through it are in integration/test_compress.py."""

from __future__ import annotations

import math

import numpy as np
import pytest

from charrnn.coding import ArithmeticDecoder, ArithmeticEncoder
from charrnn.errors import RequestError


@pytest.mark.parametrize("vocab_size", [1, 2, 65, 1000])
def test_tokens_come_back_at_the_price_of_their_logits(vocab_size: int) -> None:
    rng = np.random.default_rng(vocab_size)
    logits = (rng.normal(size=(500, vocab_size)) * 4).astype(np.float32)
    tokens = [int(rng.integers(vocab_size)) for _ in logits]
    encoder = ArithmeticEncoder(vocab_size)
    for row, token in zip(logits, tokens, strict=True):
        encoder.encode(row, token)
    data = encoder.finish()
    exact = logits.astype(float)
    nats = sum(
        np.log(np.exp(row - row.max()).sum()) + row.max() - row[token]
        for row, token in zip(exact, tokens, strict=True)
    )
    # The last bytes are left out where they are zero, which wins a bit now and then.
    assert nats / math.log(2) - 9 < 8 * len(data) < nats / math.log(2) + 9
    decoder = ArithmeticDecoder(vocab_size, data)
    assert [decoder.decode(row) for row in logits] == tokens


def test_an_encoder_starts_anew_after_its_end() -> None:
    encoder, row = ArithmeticEncoder(2), np.zeros(2, np.float32)
    encoder.encode(row, 1)
    first = encoder.finish()
    encoder.encode(row, 1)
    assert encoder.finish() == first
    assert encoder.finish() == b""


def test_what_cannot_be_coded_is_refused() -> None:
    encoder = ArithmeticEncoder(2)
    with pytest.raises(RequestError, match="token 1 is too unlikely to code"):
        encoder.encode(np.array([0, -50], np.float32), 1)
    with pytest.raises(RequestError, match="token is 2; it must be below 2"):
        encoder.encode(np.zeros(2, np.float32), 2)
    with pytest.raises(RequestError, match="logits have length 3; expected 2"):
        encoder.encode(np.zeros(3, np.float32), 0)
    with pytest.raises(RequestError, match="NaN"):
        encoder.encode(np.array([0, math.nan], np.float32), 0)
    with pytest.raises(RequestError, match="vocab_size is 0"):
        ArithmeticEncoder(0)

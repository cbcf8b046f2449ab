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


def test_an_encoder_takes_nothing_after_its_end() -> None:
    encoder, row = ArithmeticEncoder(2), np.zeros(2, np.float32)
    encoder.encode(row, 1)
    encoder.finish()
    with pytest.raises(RequestError, match="the encoder is finished; make a new one"):
        encoder.encode(row, 1)
    with pytest.raises(RequestError, match="the encoder is finished; make a new one"):
        encoder.finish()


def test_rows_are_what_a_sampler_takes() -> None:
    torch = pytest.importorskip("torch")
    row = np.array([0, 1, 2], np.float32)
    rows = [row, row.astype(float), row.tolist(), np.repeat(row, 2)[::2], torch.from_numpy(row)]
    encoder = ArithmeticEncoder(3)
    for any_row in rows:
        encoder.encode(any_row, 1)
    decoder = ArithmeticDecoder(3, encoder.finish())
    assert [decoder.decode(any_row) for any_row in rows] == [1] * 5


def test_what_cannot_be_coded_is_refused() -> None:
    encoder = ArithmeticEncoder(2)
    with pytest.raises(RequestError, match="token 1 is too unlikely to code"):
        encoder.encode(np.array([0, -50], np.float32), 1)
    with pytest.raises(RequestError, match="token is 2; it must be a whole number of 0 to 1"):
        encoder.encode(np.zeros(2, np.float32), 2)
    with pytest.raises(RequestError, match="token is -1; it must be a whole number of 0 to 1"):
        encoder.encode(np.zeros(2, np.float32), -1)
    with pytest.raises(RequestError, match=r"logits have 2 dimensions; expected 1, \(V,\)"):
        encoder.encode(np.zeros((1, 2), np.float32), 0)
    with pytest.raises(RequestError, match="logits have length 3; expected 2"):
        encoder.encode(np.zeros(3, np.float32), 0)
    with pytest.raises(RequestError, match="NaN"):
        encoder.encode(np.array([0, math.nan], np.float32), 0)
    with pytest.raises(RequestError, match="vocab_size is 0"):
        ArithmeticEncoder(0)

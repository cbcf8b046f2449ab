from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from charrnn.training import CharRNN, evaluate
from charrnn.training.cold import loss_by_position
from charrnn.training.documents import PADDING, DocumentWindows
from charrnn.training.dynamic import DynamicSettings, dynamic_loss
from charrnn.training.model import ModelShape
from charrnn.training.sampling import sample_documents
from charrnn.vocab import Vocab

END = 3


def documents(num: int, longest: int, seed: int = 1) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.choice([0, 1, 2, 4], random.integers(1, longest)).tolist() for _ in range(num)]


def joined(texts: list[list[int]]) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return np.array([token for text in texts for token in (*text, END)], np.uint8)


def model_of(cell: str = "lstm") -> CharRNN:
    torch.manual_seed(2)
    model = CharRNN(ModelShape(5, cell, 2, 6))
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.7)
    return model


def batches(windows: DocumentWindows, epoch: int) -> Iterator[list[tuple[list[int], list[int]]]]:
    """Inputs and targets of each row of each batch, put together again from the windows."""
    rows: list[tuple[list[int], list[int]]] = []
    for index in range(len(windows)):
        window = windows.window(epoch, index)
        assert window.num_tokens == int((window.targets != PADDING).sum()) > 0
        if window.is_first and rows:
            yield rows
        if window.is_first:
            rows = [([], []) for _ in range(len(window.inputs))]
        for row, read, wanted in zip(rows, window.inputs.tolist(), window.targets.tolist(), strict=True):
            num = sum(token != PADDING for token in wanted)
            assert wanted[num:] == [PADDING] * (len(wanted) - num)
            row[0].extend(read[:num])
            row[1].extend(wanted[:num])
    yield rows


@pytest.mark.parametrize(
    ("batch_size", "bptt", "longest"), [(4, 10, 60), (7, 16, 12), (32, 1, 5), (1, 8, 30)]
)
def test_an_epoch_is_every_document_once_from_its_beginning(batch_size: int, bptt: int, longest: int) -> None:
    texts = documents(50, longest)
    windows = DocumentWindows(joined(texts), END, batch_size=batch_size, bptt=bptt, seed=5)
    for epoch in range(3):
        seen: Counter[tuple[int, ...]] = Counter()
        for rows in batches(windows, epoch):
            for read, wanted in rows:
                assert not wanted or (wanted[-1], read) == (END, [END, *wanted[:-1]])
                seen[tuple(wanted[:-1])] += 1 if wanted else 0
        assert +seen == Counter(map(tuple, texts))


def test_windows_are_within_bptt_and_little_is_padding() -> None:
    windows = DocumentWindows(joined(documents(2000, 100)), END, batch_size=16, bptt=40)
    found = [windows.window(0, index) for index in range(len(windows))]
    assert max(window.inputs.shape[1] for window in found) <= 40
    assert sum(window.num_tokens for window in found) > 0.75 * sum(w.inputs.numel() for w in found)


def test_order_follows_from_seed_and_epoch_alone() -> None:
    tokens = joined(documents(60, 30))
    one, other = (DocumentWindows(tokens, END, batch_size=4, bptt=8, seed=9) for _ in range(2))
    for epoch, index in [(2, 5), (0, 1), (2, 5), (1, len(one) - 1)]:  # in any order, as after a resume
        assert one.window(epoch, index).targets.equal(other.window(epoch, index).targets)
    firsts = [one.window(epoch, 0).targets.tolist() for epoch in range(4)]
    assert all(a != b for a, b in itertools.pairwise(firsts))
    different = DocumentWindows(tokens, END, batch_size=4, bptt=8, seed=10)
    assert different.window(0, 0).targets.tolist() != firsts[0]


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_documents_are_predicted_each_by_itself(cell: str) -> None:
    model, texts = model_of(cell), [*documents(70, 20), documents(1, 2000, seed=3)[0], [0] * 450, []]
    tokens = joined(texts)
    alone = [evaluate(model, np.array([END, *text, END], np.uint8), num_streams=1) for text in texts]
    loss = evaluate(model, tokens, end_token=END)
    assert loss.num_tokens == len(tokens) == sum(each.num_tokens for each in alone)
    mean = sum(each.nats * each.num_tokens for each in alone) / len(tokens)
    assert loss.nats == pytest.approx(mean, abs=1e-6)
    buckets = loss_by_position(model, tokens, END)
    first = [evaluate(model, np.array([END, (*text, END)[0]], np.uint8)).nats for text in texts]
    assert buckets[0].loss.nats == pytest.approx(np.mean(first), abs=1e-6)
    still = dynamic_loss(model, tokens, tokens, DynamicSettings(lr=0.0), END)
    assert (still.num_tokens, still.nats) == (len(tokens), pytest.approx(mean, abs=1e-5))


def test_samples_are_documents_from_the_zero_state() -> None:
    model, vocab = model_of(), Vocab([ord(char) for char in "abc\ne"])
    found = sample_documents(model, vocab, END, num_tokens=200, seed=4)
    assert len(found) > 3
    assert not any("\n" in text for text in found)
    assert sum(len(text) + 1 for text in found) in (200, 201)
    assert found[:2] == sample_documents(model, vocab, END, num_tokens=200, seed=4)[:2]

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from charrnn.errors import DataError
from charrnn.training import CharRNN, Run, TrainConfig, Trainer, evaluate, load_run, sample_text
from charrnn.training import measures as module
from charrnn.training.cold import cold_loss
from charrnn.training.draws import draw_texts, split_documents
from charrnn.training.measures import Wanted, copied, measure, part_of, read_text
from charrnn.training.model import ModelShape
from charrnn.training.ngram import ngram_losses
from charrnn.vocab import Vocab


@pytest.fixture
def run(corpus: Path, small: TrainConfig, tmp_path: Path) -> Run:
    Trainer(small).fit(corpus, out=tmp_path / "run")
    return load_run(tmp_path / "run")


def test_all_figures_are_of_one_text_and_stand_in_json(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TEXT_TOKENS", 40)
    tokens = part_of(run, "validation")
    found = measure(run, tokens, "validation", Wanted(dynamic=True, memorisation=True))
    assert found.carried == evaluate(run.model, tokens)
    assert found.cold == cold_loss(run.model, tokens, 16)
    assert found.ngram == ngram_losses(run.tokens["train"], tokens, len(run.vocab))
    assert found.dynamic is not None
    assert found.dynamic.num_tokens == len(tokens) - 1
    assert found.copied is not None
    assert found.copied.held_out is not None
    assert found.copied.held_out.num_tokens <= found.copied.drawn.num_tokens == 800
    told = json.loads(json.dumps(found.to_json()))
    assert told["carried"]["bpc"] == pytest.approx(found.carried.bpc)
    assert told["memorisation"]["drawn"]["novel"]["2"] == found.copied.drawn.novel[2]
    plain = measure(run, tokens, "validation", Wanted(ngram=False)).to_json()
    assert (plain["ngram"], plain["dynamic"], plain["memorisation"]) == (None, None, None)


def test_the_excerpt_is_in_the_training_text(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TEXT_TOKENS", 40)
    found = copied(run)
    assert found.excerpt in run.vocab.decode(run.tokens["train"])
    assert found.drawn.longest is not None
    assert len(found.excerpt) == found.drawn.longest.length


def test_a_part_that_is_not_there(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    Trainer(small.replace(split="none", max_steps=2)).fit(corpus, out=tmp_path / "run")
    run = load_run(tmp_path / "run")
    with pytest.raises(DataError, match="has no part 'validation', its split none has train"):
        part_of(run, "validation")
    assert copied(run).held_out is None


def test_the_first_text_drawn_is_the_sample_of_its_seed() -> None:
    torch.manual_seed(1)
    model = CharRNN(ModelShape(4, "gru", 1, 8, dropout=0.5)).train()
    vocab = Vocab.from_text("abc\n")
    texts = draw_texts(model, 0, num_texts=3, num_tokens=30)
    assert vocab.decode(texts[0]) == sample_text(model, vocab, num_tokens=30, seed=1)
    assert len({text.tobytes() for text in texts}) == 3
    assert model.training


def test_documents_end_before_their_end_token() -> None:
    torch.manual_seed(1)
    model = CharRNN(ModelShape(4, "gru", 1, 8))
    whole = draw_texts(model, 3, num_texts=20, num_tokens=60)
    ended = draw_texts(model, 3, num_texts=20, num_tokens=60, end=3)
    for text, document in zip(whole, ended, strict=True):
        assert document.tolist() == text[: [*text.tolist(), 3].index(3)].tolist()


def test_documents_of_a_text() -> None:
    tokens = np.array([1, 2, 9, 9, 3, 9, 4], np.uint8)
    assert [document.tolist() for document in split_documents(tokens, 9)] == [[1, 2], [], [3], [4]]
    assert [document.tolist() for document in split_documents(tokens[:6], 9)] == [[1, 2], [], [3]]
    assert split_documents(tokens[:0], 9) == []


def test_a_text_is_read_as_the_run_reads_its_own(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    """The whole text, its bytes and its documents, are the tokens that the run keeps."""
    for index, change in enumerate(({}, {"unit": "byte"}, {"separator": "\n"})):
        path = tmp_path / str(index)
        config = small.replace(max_steps=1, split="none", **change)
        Trainer(config).fit(corpus, out=path)
        run = load_run(path)
        np.testing.assert_array_equal(read_text(corpus, run), run.tokens["train"])
    other = tmp_path / "other"
    other.write_bytes(b"t\xff")
    for index, message in enumerate(("is not UTF-8 at byte 1", "byte 0xff at token 1 is not in the run's")):
        with pytest.raises(DataError, match=message):
            read_text(other, load_run(tmp_path / str(index)))
    other.write_bytes(b"t")
    with pytest.raises(DataError, match="has 1 chars; a loss needs two or more"):
        read_text(other, load_run(tmp_path / "0"))


def test_of_documents_the_share_that_is_new_is_told(
    small: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NUM_DOCUMENTS", 50)
    names = tmp_path / "names"
    names.write_text("".join(f"{a}{b}\n" for a in "abcdefgh" for b in "aeiou") * 4)
    Trainer(small.replace(max_steps=40, separator="\n", bptt=8)).fit(names, out=tmp_path / "run")
    run = load_run(tmp_path / "run")
    found = measure(run, part_of(run, "validation"), "validation", Wanted(memorisation=True))
    assert found.ngram is not None
    assert found.ngram.num_tokens == found.num_tokens  # the first symbol too, after an end token
    assert found.copied is not None
    assert found.copied.documents is not None
    made, drawn = found.copied.documents, found.copied.drawn
    assert (made.num_documents, drawn.num_texts) == (50, 50)
    assert made.num_novel <= 50
    held_out = found.copied.held_out_documents
    assert held_out is not None
    assert (held_out.num_novel, held_out.novel) == (0, 0.0)  # each name stands in all four quarters
    assert found.to_json()["memorisation"]["held_out_documents"]["num_novel"] == 0

"""A model of documents: its end symbol begins every text, ends it, and costs what it cost in training.

The model is the tiny one, exported as if its lines were documents: what is checked is that all ways agree.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from charrnn import Bundle, Client, Engine, coding
from charrnn.errors import RequestError
from charrnn.export import export_model
from charrnn.export.source import TrainedModel, read_run
from charrnn.training import TrainConfig, Trainer, evaluate, load_run
from tests.reference import Rules, draw, uniform64
from tests.servers import run_charrnn, running_server

PROMPT = "The "
REQUESTS = [
    {"seed": 1, "max_tokens": 1000},
    {"seed": 2, "max_tokens": 1000, "temperature": 0.7, "min_tokens": 120},
    {"seed": 3, "max_tokens": 1000, "stop": ["\n", "Why?"], "repetition_penalty": 1.1},
    {"seed": 4, "max_tokens": 7},
    {"seed": 5, "max_tokens": 1000, "regex": r"([A-Za-z ,()]{1,40}[.!?]\s?){1,9}"},
]
REASONS = {"end", "length", "match"}
TEXT = "The dog sleeps.\n\nWho knows? not so lazy\nThe quick brown fox jumps over a lazy dog\nand"


@pytest.fixture(scope="module")
def source(tiny_run: Path) -> TrainedModel:
    read = read_run(tiny_run, "best")
    return replace(read, end_token=read.symbols.index(ord("\n")))


@pytest.fixture(scope="module")
def bundle(source: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("documents") / "lines"
    export_model(source, path)
    return path


@pytest.fixture(scope="module")
def texts(bundle: Path) -> list[tuple[str, str]]:
    """What one worker alone makes of the requests, with the reasons."""
    with Engine(bundle, workers=1, max_streams=1) as engine:
        texts = [read(engine.generate(PROMPT, chunk_chars=1, **it)) for it in REQUESTS]
    assert {reason for _, reason in texts} == REASONS
    assert not any("\n" in text for text, _ in texts)
    return texts


def read(stream: object) -> tuple[str, str]:
    text = stream.read()  # type: ignore[attr-defined]
    finished = stream.finished  # type: ignore[attr-defined]
    assert finished.num_chars == len(text)
    assert finished.matched_stop is None
    return text, finished.reason


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("chunk_chars", [1, 16])
def test_one_text_in_process(
    bundle: Path, texts: list[tuple[str, str]], workers: int, chunk_chars: int
) -> None:
    with Engine(bundle, workers=workers) as engine:
        streams = [engine.generate(PROMPT, chunk_chars=chunk_chars, **it) for it in REQUESTS]
        assert [read(stream) for stream in streams] == texts


def test_one_text_from_a_server(bundle: Path, texts: list[tuple[str, str]]) -> None:
    with running_server(bundle, "--workers", "2") as address, Client(address) as client:
        end_token = Bundle.open(bundle).end_token
        assert [model.end_token for model in client.models()] == [end_token]
        streams = [client.generate(PROMPT, **it) for it in REQUESTS]
        assert [read(stream) for stream in streams] == texts
        command = ["generate", "--server", address, "--prompt", PROMPT, "--seed", "1", "--max-tokens", "1000"]
        done = run_charrnn(*command, "--json")
        *_, finished = events = [json.loads(line) for line in done.stdout.splitlines()]
        text = "".join(event["text"] for event in events if event["event"] == "chunk")
        assert (text, finished["reason"]) == texts[0]


def test_a_text_is_the_torch_loops(source: TrainedModel, bundle: Path) -> None:
    """As ``test_torch_reference``, from the end symbol and the zero state to the end symbol."""
    end, vocab = source.end_token, Bundle.open(bundle).vocab
    with Engine(bundle, precision="fp32", workers=1) as engine:
        text, reason = read(engine.generate(PROMPT, seed=9, max_tokens=2000))
    assert reason == "end"
    assert end is not None
    state = source.model.zero_state(1)
    fed = [end, *vocab.encode(PROMPT)]
    for position, token in enumerate([*vocab.encode(text), end]):
        for read_token in fed:
            with torch.no_grad():
                logits, state = source.model.step(torch.tensor([int(read_token)]), state)
        expected, margin = draw(logits[0].double().tolist(), Rules(), uniform64(9, position))
        assert expected == token or margin < 1e-3, position
        fed = [int(token)]


def documents(text: str) -> Iterator[tuple[str, str]]:
    """What a model reads and what it predicts, a document each."""
    for line in text.splitlines(keepends=True):
        yield "\n" + line[:-1], line


def test_coded_size_is_the_loss_of_training(source: TrainedModel, bundle: Path, tmp_path: Path) -> None:
    vocab, nats = Bundle.open(bundle).vocab, 0.0
    for inputs, targets in documents(TEXT + "\n"):
        read_tokens, expected = (torch.from_numpy(np.int64(vocab.encode(it))) for it in (inputs, targets))
        with torch.no_grad():
            logits, _ = source.model(read_tokens[None], source.model.zero_state(1))
        nats += float(cross_entropy(logits[0], expected, reduction="sum"))
    path, packed, restored = tmp_path / "text", tmp_path / "packed", tmp_path / "restored"
    path.write_text(TEXT + "\n")
    bits, report = coding.measure(path, bundle, precision="fp32")
    assert report.num_symbols == len(TEXT) + 1
    # The escape's share of each distribution, and sums in another order.
    assert bits == pytest.approx(nats / math.log(2), abs=0.02)
    assert abs(bits - plain_bits(source, TEXT + "\n")) > 0.1, "the state at an end did not matter"
    coding.compress(path, packed, bundle)
    coding.decompress(packed, restored, bundle)
    assert restored.read_bytes() == path.read_bytes()


def test_a_score_begins_every_document_anew(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text(TEXT + "\n")
    bits, report = coding.measure(path, bundle, precision="fp32")
    with Engine(bundle, precision="fp32", workers=1) as engine:
        score = engine.score(TEXT + "\n")
        lines = [engine.score(line) for line in (TEXT + "\n").splitlines(keepends=True)]
        with pytest.raises(RequestError, match="ends a document"):
            engine.score("dog", prompt="The \n")
    assert score.num_symbols == report.num_symbols
    # All but the escape's share.
    assert score.bpc == pytest.approx(bits / report.num_symbols - math.log2(1 + 2**-20), abs=1e-7)
    assert score.nats == pytest.approx(math.fsum(line.nats for line in lines), abs=1e-9)


def test_a_trained_model_is_measured_and_served_as_it_was_trained(tmp_path: Path) -> None:
    corpus, run_path, path = tmp_path / "names", tmp_path / "run", tmp_path / "bundle"
    corpus.write_text("".join(f"{a}{b}{a}{c}\n" for a in "abcdefgh" for b in "aeiou" for c in "xyz"))
    config = TrainConfig(separator="\n", hidden_size=16, batch_size=8, bptt=3, lr=0.02, max_steps=700)
    trained = Trainer(config.replace(threads=1, split="interleaved")).fit(corpus, out=run_path)
    run = load_run(run_path, "last")
    loss = evaluate(run.model, run.tokens["validation"], end_token=run.end_token)
    # Chance is 2.9 nats, and 0.96 is what these names hold for who knows where each begins.
    assert loss.nats == pytest.approx(trained.losses["validation"], abs=1e-6)
    assert loss.nats < 1.2
    names = trained.sample.split("\n")
    assert sum(len(name) == 4 and name[0] == name[2] for name in names) > 0.5 * len(names)
    exported = export_model(read_run(run_path, "last"), path)
    assert exported.torch_bpc == pytest.approx(loss.bpc, abs=2e-6)
    assert exported.num_tokens == loss.num_tokens
    corpus.write_text(run.vocab.decode(run.tokens["validation"]))
    bits, report = coding.measure(corpus, path, precision="fp32")
    assert (report.num_symbols, bits) == (
        loss.num_tokens,
        pytest.approx(loss.bpc * loss.num_tokens, abs=0.02),
    )
    with Engine(path, precision="fp32", workers=1) as engine:
        assert engine.generate("", seed=config.seed, max_tokens=50).read() == names[0]


def plain_bits(source: TrainedModel, text: str) -> float:
    """The same text with the state carried over the ends."""
    tokens = torch.tensor([source.symbols.index(ord(c)) for c in "\n" + text])
    with torch.no_grad():
        logits, _ = source.model(tokens[None, :-1], source.model.zero_state(1))
    return float(cross_entropy(logits[0], tokens[1:], reduction="sum")) / math.log(2)


def test_a_prompt_that_holds_the_end_is_refused(bundle: Path) -> None:
    message = r"prompt: character '\\n' \(U\+000A\) at position 4 ends a document of this model"
    with Engine(bundle, workers=1) as engine:
        with pytest.raises(RequestError, match=message):
            engine.generate("The \ndog")
        banned = {Bundle.open(bundle).end_token: -math.inf}
        # Banned, the end never comes.
        assert read(engine.generate("", logit_bias=banned, max_tokens=900, seed=1))[1] == "length"
    done = run_charrnn("sample", bundle, "--prompt", "The \n")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr


def test_the_bundle_says_what_ends_its_texts(source: TrainedModel, bundle: Path, tiny_bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    assert manifest["end_token"] == manifest["start_token"] == source.end_token
    assert "`'\\n'` (token" in (bundle / "README.md").read_text()
    plain = json.loads((tiny_bundle / "manifest.json").read_bytes())
    assert "end_token" not in plain
    assert Bundle.open(tiny_bundle).end_token is None
    assert "ends each" not in (tiny_bundle / "README.md").read_text()

"""How likely texts and their symbols are: a server's word against a plain loop over onnxruntime and numpy."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest

from charrnn import AsyncClient, Bundle, Chunk, Client, Engine, Score
from charrnn.errors import RequestError, ServerBusyError, ServerError
from tests.integration.test_server_lost import end, serve
from tests.servers import run_charrnn, running_server

Rows = npt.NDArray[np.float64]

TEXT = "The lazy dog sleeps.\nWho knows? The quick brown fox jumps over the dog (who is not so lazy).\n" * 12
# The escape of a compressed file takes this of every symbol, which eval counts and a score does not.
ESCAPE_BITS = math.log2(1 + 2**-20)


class Oracle:
    """The float32 graph, one symbol after the other, and its softmax in float64."""

    def __init__(self, bundle: Path) -> None:
        opened = Bundle.open(bundle)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        path = str(opened.precisions["fp32"].path)
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.vocab = opened.vocab

    def rows(self, ids: list[int]) -> Rows:
        """ln p, (T, V), of what follows each of ``ids`` (T,), read from the zero state on."""
        inputs = [entry for entry in self.session.get_inputs() if entry.name != "token"]
        state = {entry.name: np.zeros((1, entry.shape[1]), np.float32) for entry in inputs}
        rows = []
        for token in ids:
            logits, *after = self.session.run(None, state | {"token": np.array([token], np.int64)})
            state = dict(zip(state, after, strict=True))
            wide = logits[0].astype(np.float64)
            rows.append(wide - wide.max() - np.log(np.exp(wide - wide.max()).sum()))
        return np.array(rows)

    def encode(self, text: str) -> list[int]:
        return [int(token) for token in self.vocab.encode(text)]


@pytest.fixture(scope="module")
def oracle(tiny_bundle: Path) -> Oracle:
    return Oracle(tiny_bundle)


@pytest.fixture(scope="module")
def client(tiny_bundle: Path) -> Iterator[Client]:
    with running_server(tiny_bundle, "--precision", "fp32") as address, Client(address) as client:
        yield client


def told(stream: Iterator[Chunk]) -> tuple[str, Score]:
    """A text, and of its symbols what a score would tell."""
    ids, logprobs, top, text = list[int](), list[float](), list[Any](), ""
    for chunk in stream:
        text += chunk.text
        ids += chunk.ids
        logprobs += chunk.logprobs
        top += chunk.top
    return text, Score("", len(ids), -math.fsum(logprobs), tuple(ids), tuple(logprobs), tuple(top))


def assert_are(symbols: Score, rows: Rows) -> None:
    """Each symbol, and the best in its place, as likely as ``rows`` (T, V) say."""
    assert len(symbols.ids) == len(symbols.logprobs) == len(rows) > 0
    assert symbols.logprobs == pytest.approx(
        [row[i] for row, i in zip(rows, symbols.ids, strict=True)], abs=1e-5
    )
    for top, row in zip(symbols.top, rows, strict=True):
        best = np.argsort(-row)[: len(top)]
        assert [logprob for _, logprob in top] == pytest.approx(row[best].tolist(), abs=1e-5)


@pytest.mark.parametrize("stop", [(), ("dog", "fox jumps", "zy,")])
def test_what_is_told_of_a_text_is_the_models_word_and_changes_nothing(
    client: Client, oracle: Oracle, stop: tuple[str, ...]
) -> None:
    for seed, temperature in [(1, 1.0), (2, 0.6), (3, 1.4)]:
        asked: dict[str, Any] = {"seed": seed, "temperature": temperature, "stop": stop, "max_tokens": 200}
        plain = client.generate("The ", **asked).read()
        text, symbols = told(client.generate("The ", logprobs=True, top_logprobs=3, **asked))
        assert text == plain == oracle.vocab.decode(symbols.ids)
        prompt = oracle.encode("The ")
        assert_are(symbols, oracle.rows([*prompt, *symbols.ids])[len(prompt) - 1 : -1])
        assert told(client.generate("The ", ids=True, **asked))[1].ids == symbols.ids


def test_chunks_that_nothing_was_asked_of_tell_nothing(client: Client) -> None:
    assert all(
        (chunk.ids, chunk.logprobs, chunk.top) == ((), (), ()) for chunk in client.generate("a", seed=1)
    )


def test_an_echo_is_the_prompt_and_then_the_same_text(client: Client, oracle: Oracle) -> None:
    asked: dict[str, Any] = {"seed": 4, "max_tokens": 60, "chunk_chars": 7}
    prompt = "The lazy dog"
    plain = client.generate(prompt, **asked).read()
    stream = client.generate(prompt, echo=True, logprobs=True, top_logprobs=2, **asked)
    text, symbols = told(stream)
    assert text == prompt + plain
    assert stream.finished is not None
    assert stream.finished.num_chars == len(text)
    first = oracle.rows(oracle.encode("\n"))  # the start symbol, forgotten afterwards
    rest = oracle.rows(list(symbols.ids[:-1]))
    assert_are(symbols, np.concatenate([first, rest]))
    assert client.generate(prompt, echo=True, **asked).read() == text


def test_a_score_is_that_of_a_plain_loop(client: Client, oracle: Oracle) -> None:
    ids = oracle.encode(TEXT)
    for prompt in ("", "Why? "):
        before = oracle.encode(prompt or "\n")
        rows = oracle.rows([*before, *ids])[len(before) - 1 : -1]
        score = client.score(TEXT, prompt=prompt, per_symbol=True, top_logprobs=20)
        assert (score.num_symbols, score.ids, score.model) == (len(TEXT), tuple(ids), "tiny")
        assert_are(score, rows)
        exact = -math.fsum(row[i] for row, i in zip(rows, ids, strict=True))
        assert score.nats == pytest.approx(exact, abs=1e-6 * len(ids))
        assert score.nats == pytest.approx(-math.fsum(score.logprobs), abs=1e-4)
    assert client.score(ids, prompt="Why? ") == Score("tiny", len(TEXT), score.nats)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_score_is_what_eval_says(tiny_bundle: Path, precision: str, tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_text(TEXT)
    done = run_charrnn("eval", tiny_bundle, "--text", file, "--precision", precision, "--json")
    figures = json.loads(done.stdout)
    with running_server(tiny_bundle, "--precision", precision) as address, Client(address) as client:
        served = client.score(TEXT)
    with Engine(tiny_bundle, precision=precision, workers=1) as engine:
        assert engine.score(TEXT) == served
    assert served.num_symbols == figures["num_symbols"]
    assert served.bpc == pytest.approx(figures["bpc"] - ESCAPE_BITS, abs=1e-7)


def test_scores_among_texts_are_those_alone(client: Client) -> None:
    alone = client.score(TEXT, per_symbol=True)
    text = client.generate("a", seed=1, max_tokens=3000).read()
    streams = [client.generate("a", seed=1, max_tokens=3000) for _ in range(8)]
    assert {client.score(TEXT, per_symbol=True) for _ in range(3)} == {alone}
    assert {stream.read() for stream in streams} == {text}


def test_an_engine_tells_what_a_server_tells(tiny_bundle: Path, client: Client) -> None:
    asked: dict[str, Any] = {"seed": 5, "max_tokens": 90, "logprobs": True, "top_logprobs": 2, "echo": True}
    with Engine(tiny_bundle, precision="fp32", workers=1) as engine:
        assert told(engine.generate("The ", **asked)) == told(client.generate("The ", **asked))
        score = engine.score("The dog", prompt="a", per_symbol=True, top_logprobs=2)
        assert score == client.score("The dog", prompt="a", per_symbol=True, top_logprobs=2)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"text": ""}, "text is 0"),
        ({"text": "dogé"}, r"text: character 'é' \(U\+00E9\) at position 3"),
        ({"text": "a" * 65_537}, "text is 65537"),
        ({"text": [10**6]}, "ids: id 1000000"),
        ({"text": "a", "prompt": "é"}, "prompt: character"),
        ({"text": "a", "top_logprobs": 21}, "top_logprobs is 21"),
        ({"text": "a", "top_logprobs": -1}, "."),
        ({"text": [-1]}, "."),
        ({"text": "\ud800"}, "."),
    ],
)
def test_what_cannot_be_scored_is_refused(
    tiny_bundle: Path, client: Client, arguments: dict[str, Any], word: str
) -> None:
    with Engine(tiny_bundle, workers=1) as engine, pytest.raises(RequestError, match=word):
        engine.score(**arguments)
    with pytest.raises(RequestError, match=word):
        client.score(**arguments)


def test_an_unknown_model_has_no_scores(client: Client) -> None:
    with pytest.raises(RequestError, match="large"):
        client.score("a", model="large")


def test_the_longest_text_with_all_that_can_be_told_arrives(client: Client) -> None:
    score = client.score("ab" * 32_768, top_logprobs=20)
    assert (score.num_symbols, len(score.logprobs), len(score.top)) == (65_536, 65_536, 65_536)
    assert {len(top) for top in score.top} == {20}


def test_a_client_for_asyncio_tells_the_same(client: Client) -> None:
    asked: dict[str, Any] = {"seed": 6, "max_tokens": 50, "top_logprobs": 1, "echo": True}

    async def ask() -> tuple[Score, list[Chunk]]:
        async with AsyncClient(client._settings.address) as other:
            score = await other.score("The dog", prompt="a", per_symbol=True)
            return score, [chunk async for chunk in other.generate("The ", **asked)]

    score, chunks = asyncio.run(ask())
    assert score == client.score("The dog", prompt="a", per_symbol=True)
    assert told(iter(chunks)) == told(client.generate("The ", **asked))


def test_the_command_line_echoes_and_tells_in_json(tiny_bundle: Path, oracle: Oracle) -> None:
    options = ["--prompt", "The ", "--seed", "3", "--max-tokens", "40", "--precision", "fp32"]
    plain = run_charrnn("sample", tiny_bundle, *options).stdout
    assert run_charrnn("sample", tiny_bundle, *options, "--echo").stdout == "The " + plain
    for refused in (["--logprobs"], ["--top-logprobs", "2"]):
        done = run_charrnn("sample", tiny_bundle, *options, *refused)
        assert (done.returncode, done.stdout, "--json" in done.stderr) == (2, "", True)
    done = run_charrnn("sample", tiny_bundle, *options, "--echo", "--top-logprobs", "2", "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    chunks = [event for event in events if event["event"] == "chunk"]
    assert "".join(chunk["text"] for chunk in chunks) == "The " + plain
    assert all(oracle.vocab.decode(chunk["ids"]) == chunk["text"] for chunk in chunks)
    assert all(len(chunk["logprobs"]) == len(chunk["top"]) == chunk["num_chars"] for chunk in chunks)


def test_a_score_waits_in_the_queue_like_a_text(tiny_bundle: Path) -> None:
    options = ["--workers", "1", "--max-streams", "1", "--queue", "0"]
    with (
        running_server(tiny_bundle, *options) as address,
        Client(address) as client,
        client.generate(max_tokens=1_000_000) as endless,
    ):
        next(endless)
        with pytest.raises(ServerBusyError):
            client.score("a")


def test_a_score_keeps_its_callers_deadline(client: Client) -> None:
    with Client(client._settings.address, timeout=0.3) as hasty, pytest.raises(ServerError, match="timeout"):
        hasty.score("ab" * 32_768, prompt="ab" * 32_768, top_logprobs=20)
    assert client.score("a").num_symbols == 1


def test_symbols_stay_with_their_characters_when_the_server_is_lost(
    tiny_bundle: Path, oracle: Oracle
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    server = serve(tiny_bundle, port)
    asked: dict[str, Any] = {"max_tokens": 5000, "logprobs": True, "top_logprobs": 1, "echo": True}
    try:
        with Client(f"127.0.0.1:{port}") as client:
            stream = client.generate("The ", **asked)
            chunks = [next(stream) for _ in range(4)]
            end(server, signal.SIGKILL)
            server = serve(tiny_bundle, port)
            chunks += stream
            alone = told(client.generate("The ", seed=stream.seed, **asked))
    finally:
        end(server, signal.SIGKILL)
    assert all(oracle.vocab.decode(chunk.ids) == chunk.text for chunk in chunks)
    assert told(iter(chunks)) == alone

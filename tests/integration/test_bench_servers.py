"""The yardstick servers of the benches keep the contract of ours, greedy texts included."""

from __future__ import annotations

import importlib
import math
import statistics
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from charrnn import Bundle, Client
from charrnn.errors import RequestError
from charrnn.export.exporter import export_model
from tests.servers import running, running_server
from tests.unit.export.small_models import make_model, make_source

SERVERS = Path(__file__).parents[2] / "benches" / "servers"
PROMPTS = ["", "n", "abc", "noqpostqatqnoon\n" * 3]
# The first is held back in vain, of the others the longer one counts.
STOP = ["qtqta", "btt", "bbtt"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model whose large random weights keep its greedy texts from settling on one character."""
    path = tmp_path_factory.mktemp("yardsticks") / "random"
    export_model(make_source(make_model(num_layers=2, hidden_size=16, spread=2.0)), path)
    return path


@pytest.fixture(scope="module")
def ours(bundle: Path) -> Iterator[Client]:
    with running_server(bundle) as address, Client(address) as client:
        yield client


@pytest.fixture(scope="module")
def naive(bundle: Path) -> Iterator[Client]:
    yield from _yardstick("naive.py", bundle)


@pytest.fixture(scope="module")
def batching(bundle: Path) -> Iterator[Client]:
    yield from _yardstick("batching.py", bundle, "--max-streams", "5")


@pytest.fixture(params=["naive", "batching"])
def yardstick(request: pytest.FixtureRequest) -> Client:
    return request.getfixturevalue(request.param)


def _yardstick(name: str, bundle: Path, *options: str) -> Iterator[Client]:
    command = [sys.executable, SERVERS / name, bundle, "--listen", "127.0.0.1:0", *options]
    with running(command) as address, Client(address) as client:
        yield client


def test_a_text_has_the_length_asked_for_and_known_characters(yardstick: Client, bundle: Path) -> None:
    with yardstick.generate("abc", max_tokens=100, seed=1, chunk_chars=7) as stream:
        chunks = list(stream)
    text = "".join(chunk.text for chunk in chunks)
    assert [(chunk.offset, chunk.num_chars) for chunk in chunks][:3] == [(0, 1), (1, 7), (8, 7)]
    assert len(text) == 100
    assert set(map(ord, text)) <= set(Bundle.open(bundle).vocab.symbols)
    assert stream.finished is not None
    assert (stream.finished.reason, stream.finished.num_chars, stream.seed) == ("length", 100, 1)


def test_the_greedy_text_is_ours(yardstick: Client, ours: Client) -> None:
    for prompt in PROMPTS:
        texts = [each.generate(prompt, temperature=0, max_tokens=150).read() for each in (yardstick, ours)]
        assert texts[0] == texts[1]


@pytest.mark.parametrize("include_stop", [False, True])
def test_stop_strings_end_it_where_they_end_ours(yardstick: Client, ours: Client, include_stop: bool) -> None:
    def end(client: Client) -> tuple[str, str | None, int, int]:
        asked = {"temperature": 0, "stop": STOP, "include_stop": include_stop, "chunk_chars": 2}
        with client.generate("abc", **asked) as stream:
            text, finished = stream.read(), stream.finished
        assert finished is not None
        return text, finished.matched_stop, finished.num_chars, finished.timing.num_steps

    assert end(yardstick) == end(ours)
    assert end(yardstick)[1] == "bbtt"


def test_a_seeded_text_is_the_same_alone_and_in_company(naive: Client, batching: Client) -> None:
    def text(client: Client, seed: int) -> str:
        options = {"temperature": 0.8, "top_k": 10} if seed % 3 else {"temperature": seed % 2}
        return client.generate(PROMPTS[seed % 4], seed=seed, max_tokens=20 + 9 * seed, **options).read()

    alone = [text(naive, seed) for seed in range(12)]
    with ThreadPoolExecutor(12) as pool:
        for client in (naive, batching):
            assert list(pool.map(lambda seed, client=client: text(client, seed), range(12))) == alone


def test_what_is_not_done_is_refused(yardstick: Client) -> None:
    with pytest.raises(RequestError, match="top_p"):
        yardstick.generate(top_p=0.5).read()
    for request in ({"prompt": "é"}, {"stop": ["é"]}):
        with pytest.raises(RequestError, match=r"U\+00E9"):
            yardstick.generate(**request).read()


def test_the_model_is_told(yardstick: Client, ours: Client) -> None:
    assert yardstick.models() == ours.models()


def test_a_cancelled_text_makes_room(batching: Client) -> None:
    endless = [batching.generate(max_tokens=1_000_000) for _ in range(5)]
    for stream in endless:
        next(stream)
        stream.close()
    assert len(batching.generate(max_tokens=5).read()) == 5


def test_the_paced_server_keeps_the_contract_without_a_model() -> None:
    command = [sys.executable, SERVERS / "paced.py", "--listen", "127.0.0.1:0"]
    with running(command) as address, Client(address) as client:
        chunks = list(client.generate(max_tokens=40))
    assert [(chunk.text, chunk.offset) for chunk in chunks] == [("x" * 16, 0), ("x" * 16, 16), ("x" * 8, 32)]


def test_its_waits_are_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SERVERS)
    waits = importlib.import_module("paced").waits()
    assert len(waits) == 40
    assert waits != sorted(waits)
    logarithms = [math.log(wait) for wait in waits]
    assert math.exp(statistics.fmean(logarithms)) == pytest.approx(0.04)
    assert statistics.pstdev(logarithms) == pytest.approx(0.4, rel=0.05)

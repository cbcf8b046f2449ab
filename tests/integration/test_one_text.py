"""One text everywhere: the promise that a text depends only on (model, prompt, parameters, seed).

The same request goes through the command line, the engine, a client alone and a client among 63 others that
join and leave, over 1 or 2 workers and chunks of 1 or 16 characters. Every way has to give the same text.
"""

from __future__ import annotations

import itertools
import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from charrnn import Client, Engine
from tests.servers import run_charrnn, running_server

PROMPT = "The "
PARAMS = {"temperature": 0.8, "seed": 42, "max_tokens": 300}
FILTERED = PARAMS | {"top_k": 20, "top_p": 0.9, "min_p": 0.01, "typical_p": 0.95, "temperature": 1.3}
PENALISED = PARAMS | {"repetition_penalty": 1.2, "frequency_penalty": 0.3, "no_repeat_ngram_size": 6}
MATCHING = PARAMS | {"regex": r"([A-Za-z ,()]{1,40}[.!?]\s?){1,9}", "min_tokens": 100, "sample_index": 3}
REQUESTS = (PARAMS, FILTERED, PENALISED, MATCHING)


@pytest.fixture(scope="module", params=["fp32", "int8"])
def precision(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def texts(tiny_bundle: Path, precision: str) -> list[str]:
    """What one worker alone makes of the requests, in chunks of one character."""
    with Engine(tiny_bundle, precision=precision, workers=1, max_streams=1) as engine:
        texts = [engine.generate(PROMPT, chunk_chars=1, **p).read() for p in REQUESTS]
    assert len({*texts}) == len(REQUESTS)
    assert all(len(text) >= 100 for text in texts)
    return texts


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("chunk_chars", [1, 16])
def test_engine(tiny_bundle: Path, precision: str, texts: list[str], workers: int, chunk_chars: int) -> None:
    with Engine(tiny_bundle, precision=precision, workers=workers) as engine:
        streams = [engine.generate(PROMPT, chunk_chars=chunk_chars, **p) for p in REQUESTS]
        assert [stream.read() for stream in streams] == texts


def test_command_line(tiny_bundle: Path, precision: str, texts: list[str]) -> None:
    for params, text in zip(REQUESTS, texts, strict=True):
        named = {**params, "prompt": PROMPT, "precision": precision}
        index = named.pop("sample_index", 0)
        options = [f"--{name.replace('_', '-')}={value}" for name, value in named.items()]
        done = run_charrnn("sample", tiny_bundle, *options, "--n", str(index + 1), "--json")
        events = [json.loads(line) for line in done.stdout.splitlines()]
        chunks = [event["text"] for event in events if (event["event"], event["index"]) == ("chunk", index)]
        assert "".join(chunks) == text, done.stderr


@pytest.fixture(scope="module", params=[1, 2])
def address(request: pytest.FixtureRequest, tiny_bundle: Path, precision: str) -> Iterator[str]:
    options = ["--precision", precision, "--workers", str(request.param)]
    with running_server(tiny_bundle, *options) as address:
        yield address


@pytest.mark.parametrize("chunk_chars", [1, 16])
def test_client_alone(address: str, texts: list[str], chunk_chars: int) -> None:
    with Client(address) as client:
        assert [client.generate(PROMPT, chunk_chars=chunk_chars, **p).read() for p in REQUESTS] == texts


@pytest.mark.parametrize("chunk_chars", [1, 16])
def test_client_among_others(address: str, texts: list[str], chunk_chars: int) -> None:
    """63 neighbours of random prompts, lengths and parameters, each replaced when it ends or is abandoned."""
    stop, first_chunks = threading.Event(), threading.Semaphore(0)
    with Client(address) as client:
        crowd = [
            threading.Thread(target=_neighbour, args=(client, number, stop, first_chunks))
            for number in range(63)
        ]
        for thread in crowd:
            thread.start()
        for _ in crowd:
            assert first_chunks.acquire(timeout=60)
        try:
            for _ in range(2):
                streams = [client.generate(PROMPT, chunk_chars=chunk_chars, **p) for p in REQUESTS]
                assert [stream.read() for stream in streams] == texts
        finally:
            stop.set()
            for thread in crowd:
                thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in crowd)


def _neighbour(client: Client, number: int, stop: threading.Event, first_chunk: threading.Semaphore) -> None:
    rng = random.Random(number)
    for turn in itertools.count():
        prompt = PROMPT * rng.randrange(5)
        params = {"seed": rng.randrange(2**63), "temperature": rng.choice([0.0, 0.5, 1.0, 2.0])}
        with client.generate(prompt, max_tokens=rng.randrange(1, 200), **params) as stream:
            for read, _ in enumerate(stream):
                if stop.is_set() or (turn % 3 == 2 and read == 2):
                    break  # abandoned half-way
        if turn == 0:
            first_chunk.release()
        if stop.is_set():
            return

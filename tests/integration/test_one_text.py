"""One text everywhere: the promise that a text depends only on (model, prompt, parameters, seed).

The same request goes through the command line, the engine, a client alone and a client among 63 others that
join and leave, over 1 or 2 workers and chunks of 1 or 16 characters. Every way has to give the same text.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from charrnn import Client, Engine
from tests.servers import run_charrnn, running_server

PROMPT = "The "
PARAMS = {"temperature": 0.8, "seed": 42, "max_tokens": 300}
FILTERED = PARAMS | {"top_k": 20, "top_p": 0.9, "min_p": 0.01, "temperature": 1.3}


@pytest.fixture(scope="module", params=["fp32", "int8"])
def precision(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def texts(tiny_bundle: Path, precision: str) -> list[str]:
    """What one worker alone makes of the two requests, in chunks of one character."""
    with Engine(tiny_bundle, precision=precision, workers=1, max_streams=1) as engine:
        return [engine.generate(PROMPT, chunk_chars=1, **p).read() for p in (PARAMS, FILTERED)]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("chunk_chars", [1, 16])
def test_engine(tiny_bundle: Path, precision: str, texts: list[str], workers: int, chunk_chars: int) -> None:
    with Engine(tiny_bundle, precision=precision, workers=workers) as engine:
        streams = [engine.generate(PROMPT, chunk_chars=chunk_chars, **p) for p in (PARAMS, FILTERED)]
        assert [stream.read() for stream in streams] == texts


def test_command_line(tiny_bundle: Path, precision: str, texts: list[str]) -> None:
    arguments = ["--prompt", PROMPT, "--max-tokens", "300", "--seed", "42", "--precision", precision]
    plain = run_charrnn("sample", tiny_bundle, *arguments, "--temperature", "0.8")
    filters = ["--temperature", "1.3", "--top-k", "20", "--top-p", "0.9", "--min-p", "0.01"]
    filtered = run_charrnn("sample", tiny_bundle, *arguments, *filters)
    assert [plain.stdout.rstrip("\n"), filtered.stdout.rstrip("\n")] == [t.rstrip("\n") for t in texts]


@pytest.fixture(scope="module", params=[1, 2])
def address(request: pytest.FixtureRequest, tiny_bundle: Path, precision: str) -> Iterator[str]:
    options = ["--precision", precision, "--workers", str(request.param)]
    with running_server(tiny_bundle, *options) as address:
        yield address


@pytest.mark.parametrize("chunk_chars", [1, 16])
def test_client_alone(address: str, texts: list[str], chunk_chars: int) -> None:
    with Client(address) as client:
        assert [
            client.generate(PROMPT, chunk_chars=chunk_chars, **p).read() for p in (PARAMS, FILTERED)
        ] == texts


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
            for _ in range(3):
                streams = [client.generate(PROMPT, chunk_chars=chunk_chars, **p) for p in (PARAMS, FILTERED)]
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

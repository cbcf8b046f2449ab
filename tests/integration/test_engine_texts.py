"""Engine and Bundle on a real model: what they hold, refuse, cancel and close."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from charrnn import Bundle, Chunk, Engine, SamplingParams, Stream
from charrnn.errors import BundleError, CharrnnError, RequestError

ENDLESS = 1_000_000


@pytest.fixture(scope="module")
def engine(tiny_bundle: Path) -> Engine:
    return Engine(tiny_bundle, precision="fp32", workers=1)


def test_a_bundle_is_its_manifest(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    assert (bundle.name, bundle.cell, bundle.num_layers, bundle.hidden_size) == ("tiny", "lstm", 2, 16)
    assert bundle.vocab.to_json() == manifest["vocab"]
    assert bundle.precisions["int8"].path == tiny_bundle / "step.int8.onnx"
    assert bundle.precisions["fp32"].bpc == manifest["precisions"]["fp32"]["bpc"]
    assert dict(bundle.training) == manifest["training"]
    assert len(bundle.digest) == 64
    with pytest.raises(TypeError):
        bundle.training["x"] = 1  # type: ignore[index]


def test_a_missing_bundle(tmp_path: Path) -> None:
    for make in (Bundle.open, Engine):
        with pytest.raises(BundleError, match="nowhere"):
            make(tmp_path / "nowhere")


def test_an_opened_bundle_makes_an_engine(tiny_bundle: Path, engine: Engine) -> None:
    with Engine(Bundle.open(tiny_bundle), precision="fp32", workers=1) as other:
        assert other.generate("The", seed=1).read() == engine.generate("The", seed=1).read()


def test_params_and_keywords_say_the_same(engine: Engine) -> None:
    params = SamplingParams(temperature=0.5, seed=2, max_tokens=99)
    by_params, by_keywords = (
        engine.generate("a", params),
        engine.generate("a", temperature=0.5, seed=2, max_tokens=99),
    )
    assert by_params.read() == by_keywords.read()
    with pytest.raises(TypeError, match="either params or seed"):
        engine.generate("a", params, seed=3)


def test_chunks_are_the_text_in_order(engine: Engine) -> None:
    stream = engine.generate("a", seed=2, max_tokens=100, chunk_chars=7)
    assert (stream.seed, stream.model) == (2, "tiny")
    chunks = list(stream)
    assert [chunk.offset for chunk in chunks] == [
        sum(c.num_chars for c in chunks[:i]) for i in range(len(chunks))
    ]
    assert max(chunk.num_chars for chunk in chunks) <= 7
    assert stream.finished is not None
    assert (stream.finished.reason, stream.finished.num_chars) == ("length", 100)
    assert (
        0
        <= stream.finished.timing.queue_s
        <= stream.finished.timing.first_char_s
        <= stream.finished.timing.total_s
    )


@pytest.mark.parametrize(
    "arguments",
    [
        {"prompt": "é"},
        {"max_tokens": 0},
        {"max_tokens": -1},
        {"top_k": 2**32},
        {"seed": 2**64},
        {"chunk_chars": 0},
        {"chunk_chars": -1},
        {"max_chunk_delay_ms": 10**6},
        {"stop": ["x" * 257]},
        {"stop": ["x"] * 65},
    ],
)
def test_what_is_out_of_limits_is_refused_at_once(engine: Engine, arguments: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        engine.generate(**arguments)


@pytest.mark.parametrize(
    "arguments", [{"workers": 0}, {"workers": -1}, {"max_streams": 0}, {"max_streams": -1}]
)
def test_an_engine_without_room_is_refused(tiny_bundle: Path, arguments: dict[str, int]) -> None:
    with pytest.raises(RequestError):
        Engine(tiny_bundle, **arguments)


def _close(stream: Stream) -> None:
    stream.close()


def _leave(stream: Stream) -> None:
    with stream:
        pass


@pytest.mark.parametrize("end", [_close, _leave])
def test_an_abandoned_text_is_cancelled(engine: Engine, end: Callable[[Stream], None]) -> None:
    stream = engine.generate(max_tokens=ENDLESS)
    next(stream)
    events = stream._events
    end(stream)
    assert next(events, None) is None
    assert (stream.read(), stream.finished) == ("", None)


def test_a_closed_engine_ends_its_texts(tiny_bundle: Path) -> None:
    engine = Engine(tiny_bundle, workers=1)
    stream = engine.generate(max_tokens=ENDLESS)
    next(stream)
    engine.close()
    engine.close()
    with pytest.raises(CharrnnError, match="the engine was closed before the text was complete"):
        stream.read()
    with pytest.raises(CharrnnError, match="engine is closed"):
        engine.generate()


def test_a_stream_keeps_its_engine(tiny_bundle: Path) -> None:
    assert len(Engine(tiny_bundle, workers=1).generate(max_tokens=3000).read()) == 3000


def test_threads_that_share_a_stream_lose_nothing(engine: Engine) -> None:
    expected = engine.generate(seed=1, max_tokens=5000).read()
    stream, chunks = engine.generate(seed=1, max_tokens=5000), list[Chunk]()
    threads = [threading.Thread(target=lambda: chunks.extend(stream)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "".join(chunk.text for chunk in sorted(chunks, key=lambda chunk: chunk.offset)) == expected
    assert stream.finished is not None


def test_a_fork_leaves_engine_and_streams_to_its_parent(tiny_bundle: Path) -> None:
    """A child that reads, closes and drops what it inherited, in a process of its own: pytest has threads."""
    code = f"""if True:
        import os, sys
        from charrnn import Engine
        from charrnn.errors import CharrnnError
        engine = Engine({str(tiny_bundle)!r}, workers=1)
        stream = engine.generate(seed=1, max_tokens=2000)
        next(stream)
        if (child := os.fork()) == 0:
            for use in (lambda: next(stream), engine.generate):
                try:
                    use()
                except CharrnnError as error:
                    assert "does not survive a fork" in str(error)
                else:
                    sys.exit(3)
            stream.close()
            engine.close()
            del stream, engine
            sys.exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        print(len(stream.read()) > 1900)
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, "panicked" in done.stderr, "Error" in done.stderr) == ("True\n", False, False)


def test_no_more_workers_than_cores_can_use(tiny_bundle: Path) -> None:
    with pytest.raises(
        RequestError, match=r"workers is 100000; it must be 1 to \d+, 4 for each of \d+ cores"
    ):
        Engine(tiny_bundle, workers=100_000)


def test_an_engine_does_not_survive_a_fork(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(CharrnnError, match="fork"):
        engine.generate()

"""The command line with a real model, as a user's shell runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from charrnn import Bundle
from charrnn._pb import charrnn_pb2 as pb
from tests.fakes import FINISHED, chunk, fake_server, started
from tests.servers import COMMAND, run_charrnn

ENDLESS = ["--max-tokens", "1000000"]


def _sample(bundle: Path, *arguments: str) -> str:
    done = run_charrnn("sample", bundle, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_same_seed_gives_the_same_text(tiny_bundle: Path) -> None:
    done = run_charrnn("sample", tiny_bundle, "--max-tokens", "300")
    assert done.returncode == 0
    assert len(done.stdout) == 300
    told = re.fullmatch(r"model tiny, seed (\d+)\n", done.stderr)
    assert told
    assert _sample(tiny_bundle, "--max-tokens", "300", "--seed", told[1]) == done.stdout
    assert _sample(tiny_bundle, "--max-tokens", "300", "--seed", str(int(told[1]) ^ 1)) != done.stdout


def test_json_tells_the_same_text(tiny_bundle: Path) -> None:
    arguments = ["--seed", "3", "--max-tokens", "100", "--prompt", "The ", "--chunk-chars", "7"]
    events = [json.loads(line) for line in _sample(tiny_bundle, *arguments, "--json").splitlines()]
    assert events[0] == {"event": "started", "index": 0, "model": "tiny", "seed": 3}
    text = "".join(event["text"] for event in events[1:-1])
    assert text == _sample(tiny_bundle, *arguments)
    assert all(len(event["text"]) == event["num_chars"] for event in events[1:-1])
    end = events[-1]
    assert (end["event"], end["reason"], end["num_chars"], end["matched_stop"]) == (
        "finished",
        "length",
        100,
        None,
    )
    assert end["timing"]["num_steps"] >= 100


def test_a_stop_string_ends_the_text(tiny_bundle: Path) -> None:
    arguments = ["--seed", "3", "--max-tokens", "300"]
    whole = _sample(tiny_bundle, *arguments)
    stop = whole[100:103]
    before = whole[: whole.index(stop)]
    assert _sample(tiny_bundle, *arguments, "--stop", stop) == before
    assert _sample(tiny_bundle, *arguments, "--stop", stop, "--include-stop") == before + stop
    end = json.loads(_sample(tiny_bundle, *arguments, "--stop", stop, "--json").splitlines()[-1])
    assert (end["reason"], end["matched_stop"]) == ("stop", stop)


def test_several_texts_of_a_seed_are_each_its_own(tiny_bundle: Path) -> None:
    arguments = ["--max-tokens", "50", "--temperature", "0.5", "--seed", "8"]
    events = [
        json.loads(line) for line in _sample(tiny_bundle, *arguments, "--n", "3", "--json").splitlines()
    ]
    assert {event["seed"] for event in events if event["event"] == "started"} == {8}
    chunks = [event for event in events if event["event"] == "chunk"]
    texts = ["".join(chunk["text"] for chunk in chunks if chunk["index"] == index) for index in range(3)]
    assert len(set(texts)) == 3
    assert texts[0] == _sample(tiny_bundle, *arguments)
    plain = _sample(tiny_bundle, *arguments, "--n", "3")
    assert plain == "".join(text.removesuffix("\n") + "\n" for text in texts)


def test_a_prompt_from_stdin(tiny_bundle: Path) -> None:
    command = [*COMMAND, "sample", str(tiny_bundle), "--seed", "1", "--prompt-file", "-"]
    done = subprocess.run(command, input="The dog", capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == _sample(tiny_bundle, "--seed", "1", "--prompt", "The dog")
    assert done.stdout != _sample(tiny_bundle, "--seed", "1")


def test_options_from_the_environment_and_a_file(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "charrnn.toml"
    file.write_text("[sample]\nseed = 4\nmax-tokens = 20\n[serve]\nqueue = 3\n")
    monkeypatch.setenv("CHARRNN_SAMPLE_SEED", "5")
    expected = _sample(tiny_bundle, "--seed", "5", "--max-tokens", "20")
    assert _sample(tiny_bundle, "--config", str(file)) == expected
    monkeypatch.setenv("CHARRNN_SAMPLE_CONFIG", str(file))
    assert _sample(tiny_bundle) == expected


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["--prompt", "dog\x1bfox"], 2, r"\u{1b}"),
        (["--prompt", "dogé"], 2, "U+00E9"),
        (["--prompt", "x" * 65537], 2, "65536"),
        (["--precision", "int4"], 3, "int4"),
        (["--chunk-chars", "5000"], 2, "--chunk-chars is 5000"),
    ],
)
def test_what_this_model_cannot_do_is_refused_in_one_line(
    tiny_bundle: Path, arguments: list[str], code: int, part: str
) -> None:
    done = run_charrnn("sample", tiny_bundle, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert part in done.stderr


def test_a_damaged_bundle_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in tiny_bundle.iterdir():
        (damaged / path.name).write_bytes(path.read_bytes())
    with (damaged / "step.onnx").open("ab") as file:
        file.write(b"\0")
    done = run_charrnn("sample", damaged, "--precision", "fp32")
    assert (done.returncode, done.stdout) == (3, "")
    assert "step.onnx" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_reader_that_leaves_ends_it_quietly(tiny_bundle: Path) -> None:
    with _start("sample", str(tiny_bundle), *ENDLESS, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert len(process.stdout.read(10)) == 10
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr is not None
        assert re.fullmatch(r"model tiny, seed \d+\n", process.stderr.read())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_sample(tiny_bundle: Path, number: signal.Signals, code: int) -> None:
    with _start("sample", str(tiny_bundle), *ENDLESS, stdout=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("model tiny")
        process.send_signal(number)
        assert process.wait(60) == code
        assert process.stderr.read() == ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_cancels_a_text_on_the_server(number: signal.Signals, code: int) -> None:
    cancelled = threading.Event()

    def generate(request: pb.GenerateRequest, context: Any) -> Iterator[pb.GenerateResponse]:
        context.add_callback(cancelled.set)
        yield from (started(), chunk("a"))
        cancelled.wait(60)
        yield FINISHED

    with fake_server(generate) as address, _start("generate", "--server", address) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "model fake, seed 7\n"
        process.send_signal(number)
        assert process.wait(60) == code
        assert cancelled.wait(60)
        assert process.stderr.read() == ""


def test_quickstart(tmp_path: Path) -> None:
    folder = tmp_path / "quick"
    done = run_charrnn("quickstart", "--out", folder, "--minutes", "0.05")
    assert done.returncode == 0, done.stderr
    commands = re.findall(r"^\$ charrnn (\w+)", done.stderr, re.MULTILINE)
    assert commands == ["train", "export", "serve", "generate"]
    assert Bundle.open(folder / "bundle").precisions.keys() == {"fp32", "int8"}
    text = ["--prompt", "The ", "--temperature", "0.8", "--seed", "1"]
    assert done.stdout.endswith(_sample(folder / "bundle", *text))
    again = run_charrnn("quickstart", "--out", folder)
    assert (again.returncode, again.stdout, again.stderr.count("\n")) == (3, "", 1)
    assert "--force" in again.stderr


def _start(*arguments: str, stdout: int | None = subprocess.PIPE) -> subprocess.Popen[str]:
    # What a buffer keeps back has to be seen too, whatever the shell of these tests says.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen(
        [*COMMAND, *arguments], stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment
    )

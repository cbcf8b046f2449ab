"""What ``charrnn serve`` says: its settings, its check, its log, and to systemd."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from charrnn import Bundle, Client
from tests.servers import COMMAND, run_charrnn, running_server, stats


def test_the_settings_that_hold_are_a_file_that_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, again = tmp_path / "server.toml", tmp_path / "again.toml"
    file.write_text('[serve]\nbundles = ["a", "b c"]\nqueue = 7\nprecision = "fp32"\n[train]\nthreads = 1\n')
    monkeypatch.setenv("CHARRNN_SERVE_MAX_STREAMS", "5")
    command = ["serve", "--print-config", "--precision", "int8", "--config"]
    done = run_charrnn(*command, file)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    for line in (
        f'bundles = ["a", "b c"]  # file {file}',
        f"queue = 7  # file {file}",
        'precision = "int8"  # command line',
        "max-streams = 5  # environment, CHARRNN_SERVE_MAX_STREAMS",
        'listen = "127.0.0.1:50051"  # default',
        "insecure = false  # default",
        "# workers =  # default: one a core",
    ):
        assert line in lines, done.stdout
    again.write_text(done.stdout)
    settings = tomllib.loads(done.stdout)["serve"]
    monkeypatch.delenv("CHARRNN_SERVE_MAX_STREAMS")
    done = run_charrnn("serve", "--print-config", "--config", again)
    assert tomllib.loads(done.stdout)["serve"] == settings
    monkeypatch.setenv("CHARRNN_SERVE_BUNDLES", os.pathsep.join(["x", "y"]))
    assert tomllib.loads(run_charrnn(*command, file).stdout)["serve"]["bundles"] == ["x", "y"]
    assert tomllib.loads(run_charrnn(*command, file, "z").stdout)["serve"]["bundles"] == ["z"]


def test_bundles_of_a_file_are_served(tiny_bundle: Path, tmp_path: Path) -> None:
    (file := tmp_path / "server.toml").write_text(f"[serve]\nbundles = [{json.dumps(str(tiny_bundle))}]\n")
    with running_server("--config", file) as address, Client(address) as client:
        assert [model.name for model in client.models()] == ["tiny"]


def test_a_check_measures_what_can_be_served(tiny_bundle: Path) -> None:
    check = ["serve", tiny_bundle, "--check", "--workers", "1", "--max-streams", "16"]
    done = run_charrnn(*check, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    (found,) = json.loads(done.stdout)
    assert found.pop("chars_per_s") > 100
    assert found == {
        "bundle": str(tiny_bundle),
        "model": "tiny",
        "version": Bundle.open(tiny_bundle).digest[:12],
        "precision": "int8",
        "workers": 1,
        "slots": 16,
        "state_bytes": 256,
        "stream_bytes": 2 * 256 + 4 * len(Bundle.open(tiny_bundle).vocab),
        "model_bytes": (tiny_bundle / "step.int8.onnx").stat().st_size,
        "error": None,
    }
    lines = run_charrnn(*check).stdout.splitlines()
    assert len(lines) == 3
    assert "characters/s" in lines[1]
    assert lines[2].split()[0] == "tiny"


def test_a_check_names_every_bundle_that_cannot_be_served(tiny_bundle: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny_bundle, damaged)
    card = damaged / "README.md"  # no server reads it, but the bundle is not what was exported
    card.write_text(card.read_text() + "!")
    done = run_charrnn("serve", tiny_bundle, damaged, tmp_path / "none", tiny_bundle, "--check", "--json")
    assert done.returncode == 3
    errors = [entry["error"] for entry in json.loads(done.stdout)]
    assert errors[0] is None
    for error, part in zip(errors[1:], ("sha256", "no folder", "'tiny'"), strict=True):
        assert part in error
    assert done.stderr.count("error: ") == done.stderr.count("\n") == 3


@pytest.fixture
def one_core() -> Iterator[None]:
    """What is started meanwhile may use no more."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    yield
    os.sched_setaffinity(0, cores)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores are not to be had one by one here")
@pytest.mark.usefixtures("one_core")
def test_a_check_counts_the_slots_that_a_server_would_have(tiny_bundle: Path) -> None:
    (found,) = json.loads(run_charrnn("serve", tiny_bundle, "--check", "--json").stdout)
    with running_server(tiny_bundle) as address:
        assert (found["workers"], found["slots"]) == (1, stats(address).slots)


@contextlib.contextmanager
def _logging(bundle: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A server that logs JSON, and its first line."""
    command = [*COMMAND, "serve", str(bundle), "--listen", "127.0.0.1:0", "--log-format", "json", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            yield process, json.loads(process.stderr.readline())
        finally:
            process.kill()


@pytest.mark.parametrize("option", [["--log-requests"], ["--log-level", "debug"]])
def test_each_text_is_a_line_that_does_not_say_it(tiny_bundle: Path, option: list[str]) -> None:
    with _logging(tiny_bundle, *option) as (process, serving), Client(serving["listen"]) as client:
        assert (serving["level"], serving["message"]) == ("INFO", "serving")
        text = client.generate("The lazy dog", seed=1, max_tokens=80).read()
        endless = client.generate("The", max_tokens=1_000_000)
        next(endless)
        endless.close()
        with pytest.raises(Exception, match=r"U\+00E9"):
            client.generate("dogé").read()
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        log = process.stderr.read()
        assert process.wait(60) == 0
    lines = [json.loads(line) for line in log.splitlines()]
    first, cancelled = (line for line in lines if line["message"] == "text")
    assert (first["model"], first["reason"], first["chars"], first["steps"]) == ("tiny", "length", 80, 91)
    assert first["version"] == Bundle.open(tiny_bundle).digest[:12]
    assert first["queue_us"] <= first["first_char_us"] <= first["total_us"]
    assert cancelled["reason"] == "cancelled"
    assert [line["message"] for line in lines[-2:]] == ["draining", "stopped"]
    assert "lazy dog" not in log
    assert text[:20] not in log
    assert "seed" not in log


def test_nothing_is_told_of_texts_unless_asked(tiny_bundle: Path) -> None:
    with _logging(tiny_bundle) as (process, serving), Client(serving["listen"]) as client:
        client.generate(max_tokens=10).read()
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        said = [json.loads(line)["message"] for line in process.stderr]
    assert said == ["draining", "stopped"]


def test_off_is_silent(tiny_bundle: Path) -> None:
    with running_server(tiny_bundle, "--log-level", "off") as address, Client(address) as client:
        assert client.generate(max_tokens=5).read()


def test_the_service_manager_is_told_of_the_start_a_reload_and_the_end(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))

        def told() -> list[str]:
            return manager.recv(4096).decode().splitlines()

        with _logging(tiny_bundle) as (process, _):
            assert told() == ["READY=1"]
            process.send_signal(signal.SIGHUP)
            reloading, since = told()
            assert reloading == "RELOADING=1"
            assert 0 < int(since.removeprefix("MONOTONIC_USEC=")) <= _monotonic_us()
            assert told() == ["READY=1"]
            process.send_signal(signal.SIGTERM)
            assert told() == ["STOPPING=1"]
            assert process.wait(60) == 0


def _monotonic_us() -> int:
    import time

    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000

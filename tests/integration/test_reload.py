"""Models exchanged in a running ``charrnn serve``: under load, by SIGHUP, and with what cannot be loaded."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import termios
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from charrnn import Bundle, Client, Engine
from charrnn.admin import Admin
from charrnn.cli.serve import ADMIN, METRICS, READY
from charrnn.errors import BundleError, RequestError, ServerError, ServerUnavailableError
from tests.servers import COMMAND, run_charrnn

NUM_SWAPS = 50
LENGTHS = (50, 150, 400)
# A swap leaves what malloc keeps for the next one; 50 copies of even the smallest session would be far more.
MAX_GROWTH_BYTES = 24 << 20


class Server:
    """A ``charrnn serve`` process with all its listeners."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stderr is not None
        self._stderr = process.stderr
        self.address = self.line(READY).split(";")[0]
        self.metrics = self.line(METRICS)
        self.admin = self.line(ADMIN)

    def line(self, start: str) -> str:
        """What follows ``start`` in the next line."""
        line = self._stderr.readline()
        assert line.startswith(start), line
        return line.removeprefix(start).strip()

    def value(self, series: str) -> float:
        """Of a series of metrics."""
        page = urllib.request.urlopen(self.metrics).read().decode()
        (value,) = re.findall(rf"^{re.escape(series)} (\S+)$", page, re.MULTILINE)
        return float(value)


@contextlib.contextmanager
def _serving(*arguments: str | Path) -> Iterator[Server]:
    listeners = [word for name in ("--listen", "--metrics", "--admin") for word in (name, "127.0.0.1:0")]
    command = [*COMMAND, "serve", *map(str, arguments), *listeners, "--workers", "1", "--max-streams", "8"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield Server(process)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def other_bundle(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model of the name ``tiny``: it has other weights and writes other texts."""
    folder = tmp_path_factory.mktemp("other")
    corpus = tiny_run.parent / "corpus.txt"
    shape = ["--num-layers", "1", "--hidden-size", "24", "--batch-size", "8", "--bptt", "32"]
    run, bundle = folder / "run", folder / "tiny"
    done = run_charrnn("train", corpus, "--out", run, *shape, "--max-steps", "40", "--seed", "2")
    assert done.returncode == 0, done.stderr
    done = run_charrnn("export", run, "--out", bundle)
    assert done.returncode == 0, done.stderr
    return bundle


def _solo(bundle: Path) -> dict[int, str]:
    """What a bundle's model writes alone, by length, which is also the seed."""
    with Engine(bundle, workers=1) as engine:
        return {length: engine.generate("The ", seed=length, max_tokens=length).read() for length in LENGTHS}


def _read_until(is_over: threading.Event, address: str, solo: dict[str, dict[int, str]]) -> list[str]:
    """Read text after text, each as it is alone; the versions seen."""
    seen = []
    with Client(address) as client:
        while not is_over.is_set():
            for length in LENGTHS:
                stream = client.generate("The ", seed=length, max_tokens=length)
                version = stream.version
                assert stream.read() == solo[version][length]
                seen.append(version)
    return seen


def _wait_until(condition: Callable[[], bool]) -> None:
    while not condition():  # bounded by the test's timeout
        pass


def _is_refused(client: Client) -> bool:
    try:
        client.generate(max_tokens=1).read()
    except ServerUnavailableError:
        return True
    return False


def _version(bundle: Path) -> str:
    return Bundle.open(bundle).digest[:12]


def test_fifty_swaps_under_load_move_no_text_and_keep_no_memory(
    tiny_bundle: Path, other_bundle: Path
) -> None:
    bundles = [tiny_bundle, other_bundle]
    solo = {_version(bundle): _solo(bundle) for bundle in bundles}
    assert len({texts[400] for texts in solo.values()}) == 2
    with _serving(tiny_bundle) as server, Admin(server.admin) as admin, ThreadPoolExecutor(4) as pool:
        is_over = threading.Event()
        readers = [pool.submit(_read_until, is_over, server.address, solo) for _ in range(4)]
        try:
            used = []
            for swap in range(1, NUM_SWAPS + 1):
                model, replaced = admin.load(bundles[swap % 2])
                assert (model.version, replaced) == (
                    _version(bundles[swap % 2]),
                    _version(bundles[swap % 2 - 1]),
                )
                used.append(server.value("process_resident_memory_bytes"))
        finally:
            is_over.set()
        seen = [version for reader in readers for version in reader.result()]
        assert set(seen) == set(solo)
        with Client(server.address) as client:
            _wait_until(lambda: len(client.models()) == 1)
        assert server.value("charrnn_model_reload_failures_total") == 0
        ended = 'charrnn_requests_total{model="tiny",reason="length"}'
        _wait_until(lambda: server.value(ended) == len(seen))  # a reader has the end before it is counted
    assert min(used[-10:]) - min(used[5:15]) < MAX_GROWTH_BYTES, used


def test_what_cannot_be_loaded_leaves_what_is_served(
    tiny_bundle: Path, other_bundle: Path, tmp_path: Path
) -> None:
    damaged, foreign = tmp_path / "damaged", tmp_path / "foreign"
    shutil.copytree(other_bundle, damaged)
    graph = damaged / "step.int8.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    foreign.mkdir()
    (foreign / "manifest.json").write_text("{}")
    expected = _solo(tiny_bundle)
    with _serving(tiny_bundle) as server, Admin(server.admin) as admin, Client(server.address) as client:
        for folder, part in ((damaged, "sha256"), (foreign, "manifest"), (tmp_path / "none", "no folder")):
            with pytest.raises(BundleError, match=part):
                admin.load(folder)
            assert part in server.line("error: model not loaded")
        assert server.value("charrnn_model_reload_failures_total") == 3
        assert [model.version for model in client.models()] == [_version(tiny_bundle)]
        assert client.generate("The ", seed=50, max_tokens=50).read() == expected[50]


def test_hangup_loads_what_has_changed_and_only_that(
    tiny_bundle: Path, other_bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "tiny"
    for bundle, name in ((tiny_bundle, "old"), (other_bundle, "new")):
        shutil.copytree(bundle, tmp_path / name)
        (tmp_path / f"to-{name}").symlink_to(name)
    (tmp_path / "to-old").replace(folder)
    with _serving(folder) as server, Client(server.address) as client:
        before = client.models()
        server.process.send_signal(signal.SIGHUP)  # nothing has changed
        (tmp_path / "to-new").replace(folder)  # at once: the signal may be looked after in the midst of it
        shutil.rmtree(tmp_path / "old")
        assert client.generate(max_tokens=5).read()  # what was loaded is in memory
        server.process.send_signal(signal.SIGHUP)
        said = server.line("model loaded ")
        assert f'version="{_version(other_bundle)}"' in said
        assert f'replaced="{before[0].version}"' in said
        stream = client.generate("The ", seed=50, max_tokens=50)
        assert stream.version == _version(other_bundle)
        assert stream.read() == _solo(other_bundle)[50]
        (folder / "manifest.json").write_text("{")
        assert "model gone" in f"model gone{server.line('model gone')}"
        server.process.send_signal(signal.SIGHUP)
        assert "damaged" in server.line("error: model not loaded")
        assert client.generate(max_tokens=5).read()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0


def test_a_terminal_that_goes_ends_the_server_and_a_log_that_nobody_reads_does_not(tiny_bundle: Path) -> None:
    with _serving(tiny_bundle) as server, Admin(server.admin) as admin:
        assert server.process.stderr is not None
        server.process.stderr.close()
        for _ in range(2):
            admin.load(tiny_bundle)
        server.process.send_signal(signal.SIGHUP)
        admin.drain()
        assert server.process.wait(60) == 0
    controller, terminal = os.openpty()
    command = [*COMMAND, "serve", str(tiny_bundle), "--listen", "127.0.0.1:0", "--workers", "1"]
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(terminal, termios.TIOCSCTTY, 0),
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith(READY)
        process.send_signal(signal.SIGHUP)  # from whoever changed a bundle
        os.close(terminal)
        assert process.poll() is None
        os.close(controller)
        assert "draining" in process.stderr.read()
        assert process.wait(60) == 0


def test_a_version_that_is_asked_for_is_the_one_or_none(tiny_bundle: Path, other_bundle: Path) -> None:
    old, new = _version(tiny_bundle), _version(other_bundle)
    with _serving(tiny_bundle) as server, Admin(server.admin) as admin, Client(server.address) as client:
        endless = client.generate(max_tokens=1_000_000)
        next(endless)
        admin.load(other_bundle)
        assert {model.version for model in client.models()} == {old, new}
        assert client.generate(version=old, max_tokens=5).version == old
        assert client.generate(max_tokens=5).version == new
        endless.close()
        _wait_until(lambda: len(client.models()) == 1)
        with pytest.raises(RequestError, match=f'no version "{old}"'):
            client.generate(version=old, max_tokens=5).read()


def test_what_is_asked_of_the_wrong_port_or_too_large_is_said_so(tiny_bundle: Path) -> None:
    with _serving(tiny_bundle) as server, Client(server.admin) as lost, Client(server.address) as client:
        with pytest.raises(ServerError, match=f"^{server.admin} knows no such call"):
            lost.generate(max_tokens=1).read()
        with pytest.raises(RequestError, match=r"^the request is larger than the server takes"):
            client.generate("a" * (1 << 20), max_tokens=1).read()


def test_the_command_loads_unloads_and_drains(tiny_bundle: Path, other_bundle: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    run = other_bundle.parent / "run"
    done = run_charrnn("export", run, "--out", second, "--model-version", "v2")
    assert done.returncode == 0, done.stderr
    with _serving(tiny_bundle) as server:
        done = run_charrnn("admin", "load", server.admin, other_bundle)
        said = f"tiny {_version(other_bundle)} (int8) is served, in place of {_version(tiny_bundle)}\n"
        assert (done.returncode, done.stdout, done.stderr) == (0, "", said)
        done = run_charrnn("admin", "unload", server.admin, "tiny")
        assert (done.returncode, "is the only one" in done.stderr) == (3, True)
        done = run_charrnn("admin", "load", server.admin, second)
        assert (done.returncode, done.stderr) == (0, "second v2 (int8) is served\n")
        done = run_charrnn("admin", "unload", server.admin, "tiny")
        assert (done.returncode, done.stderr) == (0, f"tiny {_version(other_bundle)} is served no longer\n")
        done = run_charrnn("admin", "unload", server.admin, "tiny")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        done = run_charrnn("admin", "drain", server.address)
        assert (done.returncode, "is not where --admin" in done.stderr) == (2, True)
        assert run_charrnn("admin", "drain", server.admin).returncode == 0
        assert server.process.wait(60) == 0
        done = run_charrnn("admin", "drain", server.admin)
        assert done.returncode == 69


def test_a_drained_server_finishes_its_texts(tiny_bundle: Path) -> None:
    with _serving(tiny_bundle) as server, Client(server.address) as client, Admin(server.admin) as admin:
        stream = client.generate(max_tokens=100_000)
        first = next(stream).text
        admin.drain()
        with Client(server.address) as other:
            _wait_until(lambda: _is_refused(other))
        assert len(first + stream.read()) == 100_000
        assert server.process.wait(60) == 0

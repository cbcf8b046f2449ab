"""The package inside other programs: forks, threads, Ctrl-C, an interpreter that ends while texts run."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from charrnn import Engine

PROMPT, LENGTH, SEED = "The ", 400, 5
SETTINGS = f"PROMPT, LENGTH, SEED = {PROMPT!r}, {LENGTH}, {SEED}\n"


@pytest.fixture(scope="module")
def text(tiny_bundle: Path) -> str:
    with Engine(tiny_bundle, workers=1) as engine:
        return engine.generate(PROMPT, max_tokens=LENGTH, seed=SEED).read()


def program(source: str, bundle: Path) -> subprocess.Popen[str]:
    """Python with ``bundle`` as its only argument and a text's three settings by their names."""
    command = [sys.executable, "-c", SETTINGS + source, str(bundle)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def output(source: str, bundle: Path) -> str:
    with program(source, bundle) as running:
        try:
            out, err = running.communicate(timeout=100)
        except subprocess.TimeoutExpired:
            running.kill()
            raise
    assert running.returncode == 0, err
    return out


FORK = """
import os, sys
from charrnn import CharrnnError, Engine
engine = Engine(sys.argv[1], workers=1)
stream = engine.generate(PROMPT, max_tokens=LENGTH, seed=SEED)
begun = next(stream).text
if (child := os.fork()) == 0:
    for use in (lambda: engine.generate(PROMPT), lambda: next(stream)):
        try:
            use()
        except CharrnnError as error:
            print(error, flush=True)
    os._exit(0)  # with neither destructor nor thread of the parent
os.waitpid(child, 0)
print(begun + stream.read(), end="")
"""


def test_a_fork_is_told_so_and_leaves_the_parent_alone(tiny_bundle: Path, text: str) -> None:
    first, second, rest = output(FORK, tiny_bundle).split("\n", 2)
    assert first == "an engine does not survive a fork: make one in the child process"
    assert second == "a stream does not survive a fork: start one in the child process"
    assert rest == text


CHILDREN = """
import multiprocessing, sys
from charrnn import Engine

def write(path, results):
    with Engine(path, workers=1) as engine:
        results.put(engine.generate(PROMPT, max_tokens=LENGTH, seed=SEED).read())

if __name__ == "__main__":
    with Engine(sys.argv[1], workers=1) as engine:  # what it started lives in the parent alone
        engine.generate(PROMPT, max_tokens=1).read()
        context = multiprocessing.get_context(METHOD)
        results = context.Queue()
        children = [context.Process(target=write, args=(sys.argv[1], results)) for _ in range(3)]
        for child in children:
            child.start()
        texts = {results.get() for _ in children}
        for child in children:
            child.join()
        assert [child.exitcode for child in children] == [0, 0, 0]
        assert len(texts) == 1
        print(texts.pop(), end="")
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_make_engines_of_their_own(
    tiny_bundle: Path, text: str, tmp_path: Path, method: str
) -> None:
    (file := tmp_path / "children.py").write_text(f"METHOD = {method!r}\n{SETTINGS}{CHILDREN}")
    command = [sys.executable, str(file), str(tiny_bundle)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stdout) == (0, text), done.stderr


THREADS = """
import sys, threading
start, texts = threading.Barrier(8), []

def write():
    start.wait()
    import charrnn
    with charrnn.Engine(sys.argv[1], workers=1) as engine:
        texts.append(engine.generate(PROMPT, max_tokens=LENGTH, seed=SEED).read())

threads = [threading.Thread(target=write) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(texts) == 8 and len(set(texts)) == 1
print(texts[0], end="")
"""


def test_threads_import_it_and_open_bundles_at_once(tiny_bundle: Path, text: str) -> None:
    assert output(THREADS, tiny_bundle) == text


ENDLESS = """
import sys
from charrnn import Engine
engine = Engine(sys.argv[1], workers=1)
stream = engine.generate(PROMPT, max_tokens=1_000_000, seed=SEED)
print(next(stream).text, flush=True)
"""


def test_ctrl_c_ends_the_reading_of_a_text(tiny_bundle: Path) -> None:
    with program(ENDLESS + "stream.read()\n", tiny_bundle) as running:
        assert running.stdout is not None
        assert running.stdout.readline()
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    assert running.returncode == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")


WAITING = """
import sys, threading
from charrnn import Engine
engine = Engine(sys.argv[1], workers=1, max_streams=1)
busy = [engine.generate(max_tokens=1_000_000) for _ in range(20)]
next(busy[0])
for stream in busy:
    threading.Thread(target=stream.read, daemon=True).start()
waiting = engine.generate(PROMPT, max_tokens=LENGTH, seed=SEED)
print("waiting", flush=True)
waiting.read()  # in Rust: others have the only slot, one after the other
"""


def test_ctrl_c_ends_the_wait_for_a_text(tiny_bundle: Path) -> None:
    with program(WAITING, tiny_bundle) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "waiting\n"
        time.sleep(0.5)
        assert running.poll() is None
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    assert running.returncode == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")


def test_an_interpreter_may_end_while_texts_run(tiny_bundle: Path, text: str) -> None:
    assert text.startswith(output(ENDLESS, tiny_bundle).rstrip("\n"))


def test_a_text_keeps_the_engine_that_nobody_else_holds(tiny_bundle: Path) -> None:
    # More than what waits for a reader.
    source = ENDLESS + "del engine\nfor _ in range(200):\n    assert next(stream).text\nprint('closed')\n"
    assert output(source, tiny_bundle).endswith("closed\n")


SERVER = """
import sys, threading
from charrnn import Client
from charrnn.server import serve
addresses, ready = [], threading.Event()

def begin(address):
    addresses.append(address)
    ready.set()

def run():
    serve([sys.argv[1]], listen="127.0.0.1:0", workers=1, on_ready=begin)

threading.Thread(target=run, daemon=True).start()
ready.wait()
client = Client(addresses[0])
stream = client.generate(PROMPT, max_tokens=1_000_000, seed=SEED)
print(next(stream).text)
"""


def test_an_interpreter_may_end_while_it_serves(tiny_bundle: Path, text: str) -> None:
    assert text.startswith(output(SERVER, tiny_bundle).rstrip("\n"))

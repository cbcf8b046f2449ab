"""``charrnn serve`` as a process, its signals, and the client and ``charrnn generate`` against it."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from charrnn import Bundle, Client
from charrnn.cli.serve import READY
from charrnn.errors import RequestError, ServerBusyError, ServerError, ServerUnavailableError
from charrnn.server import serve
from tests.servers import COMMAND, run_charrnn, running_server

ENDLESS = 1_000_000


@contextlib.contextmanager
def _serving(bundle: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process and its address; killed at the end if the test left it running."""
    command = [*COMMAND, "serve", str(bundle), "--listen", "127.0.0.1:0", "--workers", "1", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert line.startswith(READY), line
            yield process, line.removeprefix(READY).split(";")[0]
        finally:
            process.kill()


def _wait_until_refused(client: Client) -> None:
    while True:  # bounded by the test's timeout
        try:
            client.generate(max_tokens=1).read()
        except ServerUnavailableError:
            return


def test_generate_prints_what_sample_prints(tiny_bundle: Path) -> None:
    text = ["--prompt", "The ", "--seed", "11", "--max-tokens", "400", "--temperature", "0.7", "--json"]
    sampled = run_charrnn("sample", tiny_bundle, *text)
    with running_server(tiny_bundle) as address:
        generated = run_charrnn("generate", "--server", address, *text)
        by_name = run_charrnn("generate", "--server", address, "--model", "tiny", *text)
        unknown = run_charrnn("generate", "--server", address, "--model", "large")
    assert [_text(done.stdout) for done in (generated, by_name)] == [_text(sampled.stdout)] * 2
    assert (unknown.returncode, unknown.stdout, unknown.stderr.count("\n")) == (2, "", 1)
    assert "tiny" in unknown.stderr


def _text(json_lines: str) -> str:
    return "".join(json.loads(line).get("text", "") for line in json_lines.splitlines())


def test_models(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    with running_server(tiny_bundle, "--precision", "fp32") as address, Client(address) as client:
        (model,) = client.models()
    assert (model.name, model.digest, model.vocab) == ("tiny", bundle.digest, bundle.vocab)
    assert (model.cell, model.num_layers, model.hidden_size) == ("lstm", 2, 16)
    assert (model.precision, model.bpc) == ("fp32", bundle.precisions["fp32"].bpc)
    assert model.state_bytes == 2 * 2 * 16 * 4


def test_what_the_server_refuses_the_client_raises(tiny_bundle: Path) -> None:
    with running_server(tiny_bundle) as address, Client(address) as client:
        with pytest.raises(RequestError, match=r"U\+00E9"):
            client.generate("dogé").read()
        with pytest.raises(RequestError, match="chunk_chars"):
            client.generate(chunk_chars=5000).read()
        with pytest.raises(RequestError, match="tiny"):
            client.generate(model="large").read()


def test_a_full_server_says_so_and_a_cancelled_text_makes_room(tiny_bundle: Path) -> None:
    options = ["--workers", "1", "--max-streams", "1", "--queue", "0"]
    with running_server(tiny_bundle, *options) as address, Client(address) as client:
        endless = client.generate(max_tokens=ENDLESS)
        next(endless)
        with pytest.raises(ServerBusyError):
            client.generate(max_tokens=1).read()
        endless.close()
        while True:  # until the server has seen it; bounded by the test's timeout
            try:
                assert len(client.generate(max_tokens=5).read()) == 5
                break
            except ServerBusyError:
                continue


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_texts_finish_and_takes_no_new_ones(tiny_bundle: Path, number: signal.Signals) -> None:
    num_chars = 200_000
    with _serving(tiny_bundle) as (process, address), Client(address) as client, Client(address) as other:
        stream = client.generate(max_tokens=num_chars)
        first = next(stream).text
        process.send_signal(number)
        _wait_until_refused(other)
        assert len(first + stream.read()) == num_chars
        assert stream.finished is not None
        assert process.wait(60) == 0


def test_what_does_not_finish_in_time_is_told(tiny_bundle: Path) -> None:
    with _serving(tiny_bundle, "--drain-timeout", "0") as (process, address), Client(address) as client:
        stream = client.generate(max_tokens=ENDLESS)
        next(stream)
        process.send_signal(signal.SIGTERM)
        with pytest.raises(ServerError):
            stream.read()
        assert process.wait(60) == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_acts_at_once(tiny_bundle: Path, number: signal.Signals, code: int) -> None:
    with (
        _serving(tiny_bundle, "--drain-timeout", "3600") as (process, address),
        Client(address) as client,
        Client(address) as other,
    ):
        stream = client.generate(max_tokens=ENDLESS)
        next(stream)
        process.send_signal(number)
        _wait_until_refused(other)
        process.send_signal(number)
        assert process.wait(60) == code
        stream.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_while_the_address_is_told_stops_it_as_any_other(
    tiny_bundle: Path, number: signal.Signals
) -> None:
    """Here it raises within ``on_ready``, in Python, and not where the server waits for signals."""
    program = f"""
import os, sys
import click
from charrnn.cli import main
echo = click.echo
def tell(*words, **how):
    os.kill(os.getpid(), {int(number)})
    echo(*words, **how)
click.echo = tell
sys.exit(main(["serve", {str(tiny_bundle)!r}, "--listen", "127.0.0.1:0"]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "draining" in done.stderr


def test_what_the_told_address_raises_is_raised_once_the_server_has_ended(tiny_bundle: Path) -> None:
    addresses = []

    def fail(address: str) -> None:
        addresses.append(address)
        raise ValueError("not here")

    with pytest.raises(ValueError, match="not here"):
        serve([tiny_bundle], listen="127.0.0.1:0", on_ready=fail)
    with pytest.raises(ServerUnavailableError), Client(addresses[0]) as client:
        client.models()

"""Texts outlive their server: it is killed, and they go on with the next one."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from pathlib import Path

from charrnn import Client
from tests.servers import COMMAND

LENGTH = 20_000


def serve(bundle: Path, port: int) -> subprocess.Popen[str]:
    command = [*COMMAND, "serve", str(bundle), "--listen", f"127.0.0.1:{port}", "--drain-timeout", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    assert re.search(r"127\.0\.0\.1:\d+", next(iter(server.stderr), "")), "the server ended at its start"
    return server


def end(server: subprocess.Popen[str], number: int) -> None:
    server.send_signal(number)
    server.communicate(timeout=30)


def test_texts_go_on_after_kill_9_and_after_sigterm(tiny_bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    server = serve(tiny_bundle, port)
    try:
        with Client(f"127.0.0.1:{port}") as client:
            streams = [client.generate(max_tokens=LENGTH, temperature=0.9) for _ in range(3)]
            parts = [[next(stream).text for _ in range(3)] for stream in streams]
            for number in (signal.SIGKILL, signal.SIGTERM):
                end(server, number)
                server = serve(tiny_bundle, port)
                for stream, part in zip(streams, parts, strict=True):
                    part += [next(stream).text for _ in range(20)]
            texts = ["".join(part) + stream.read() for stream, part in zip(streams, parts, strict=True)]
            for stream, text in zip(streams, texts, strict=True):
                alone = client.generate(max_tokens=LENGTH, temperature=0.9, seed=stream.seed).read()
                assert text == alone
                assert len(text) == LENGTH
    finally:
        end(server, signal.SIGKILL)

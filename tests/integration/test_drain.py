"""A server that is told to stop: what ends in time is whole, the rest is told, and no client holds it up."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import grpc

from charrnn import Client, Engine
from charrnn._pb import charrnn_pb2 as pb
from charrnn.cli.serve import METRICS, READY
from tests.frames import GOAWAY, HEADERS, PATIENCE_S, Connection, message
from tests.servers import COMMAND

SEED = 4
SHORT, LONG, ENDLESS = 5_000, 100_000, 1_000_000
DRAIN_S = 20
PAUSE_S = 0.005  # all that the server says is to be read: what is not is lost with the socket


def request(max_tokens: int) -> bytes:
    asked = pb.GenerateRequest(stopping=pb.Stopping(max_tokens=max_tokens))
    return message(asked.SerializeToString())


class Stubborn:
    """A client that takes no GOAWAY for an answer: it calls and calls on the connection that it has."""

    def __init__(self, address: str) -> None:
        self.connection = Connection(address)
        assert self.connection.call(1, request(ENDLESS))
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        stream = 3
        while self.connection.call(stream, request(1)) and stream < 2_000_000:
            stream += 2
            time.sleep(PAUSE_S)

    def close(self) -> None:
        self.connection.close()
        self._thread.join(PATIENCE_S)


def endless(address: str) -> Iterator[str]:
    """Pieces of a text of which little is taken before it is asked for."""
    options = [("grpc.http2.lookahead_bytes", 4_096), ("grpc.http2.bdp_probe", 0)]
    with grpc.insecure_channel(address, options=options) as channel:
        generate = channel.unary_stream(
            "/charrnn.v1.CharRnn/Generate",
            request_serializer=pb.GenerateRequest.SerializeToString,
            response_deserializer=pb.GenerateResponse.FromString,
        )
        asked = pb.GenerateRequest(sampling=pb.Sampling(seed=SEED), stopping=pb.Stopping(max_tokens=ENDLESS))
        for response in generate(asked):
            if response.WhichOneof("event") == "chunk":
                yield response.chunk.text


def read_slowly(pieces: Iterator[str]) -> tuple[str, grpc.StatusCode]:
    """What there is of a text that the server ends, and how."""
    text = ""
    try:
        for piece in pieces:
            text += piece
            time.sleep(0.1)
    except grpc.RpcError as ended:
        return text, ended.code()
    raise AssertionError("it came to an end")


def watch(address: str) -> Iterator[int]:
    """The statuses that a watcher of the server's health is told, until its stream ends."""
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_stream("/grpc.health.v1.Health/Watch")
        for answer in call(b"", timeout=PATIENCE_S):
            yield answer[1]


def test_texts_of_all_lengths_and_a_client_that_does_not_hear(tiny_bundle: Path) -> None:
    with Engine(tiny_bundle, workers=1) as engine:
        alone = engine.generate(max_tokens=LONG, seed=SEED).read()
    listen = ["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--drain-timeout", str(DRAIN_S)]
    command = [*COMMAND, "serve", str(tiny_bundle), "--workers", "1", *listen]
    with (
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process,
        ExitStack() as opened,
    ):
        opened.callback(process.kill)
        assert process.stderr is not None
        address = process.stderr.readline().removeprefix(READY).split(";")[0]
        assert process.stderr.readline().startswith(METRICS)
        client = opened.enter_context(Client(address, resume_s=0))
        stubborn = opened.enter_context(closing(Stubborn(address)))
        idle = opened.enter_context(closing(Connection(address)))
        texts = [client.generate(max_tokens=length, seed=SEED) for length in (SHORT, LONG)]
        begun = [next(text).text for text in texts]
        third = endless(address)
        first_piece = next(third)
        watched = watch(address)
        health = [next(watched)]
        watcher = threading.Thread(target=lambda: health.extend(watched))
        watcher.start()
        slow = opened.enter_context(ThreadPoolExecutor(1)).submit(read_slowly, third)
        process.send_signal(signal.SIGTERM)
        stubborn.start()
        for text, first, length in zip(texts, begun, (SHORT, LONG), strict=True):
            assert first + text.read() == alone[:length]
        assert process.wait(PATIENCE_S) == 0
        part, code = slow.result(PATIENCE_S)
        assert code is grpc.StatusCode.UNAVAILABLE
        assert part
        assert alone.startswith((first_piece + part)[:LONG])
        watcher.join(PATIENCE_S)
        assert health == [1, 2]  # SERVING, NOT_SERVING
        assert idle.is_closed.wait(PATIENCE_S)
        assert stubborn.connection.is_closed.wait(PATIENCE_S)
        for connection in (idle, stubborn.connection):
            assert connection.of(GOAWAY)
        assert len(stubborn.connection.of(HEADERS)) > 1  # it was answered after the signal, too


def test_a_server_killed_leaves_nothing_to_repair(tiny_bundle: Path) -> None:
    """Not even its port: the next one listens there."""
    port = "0"
    for _ in range(3):
        command = [*COMMAND, "serve", str(tiny_bundle), "--workers", "1", "--listen", f"127.0.0.1:{port}"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert line.startswith(READY), line
            address = line.removeprefix(READY).split(";")[0]
            port = address.rpartition(":")[2]
            text = endless(address)
            assert next(text)
            process.kill()
            _, code = read_slowly(text)
            assert code is grpc.StatusCode.UNAVAILABLE

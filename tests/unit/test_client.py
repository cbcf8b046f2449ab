"""The client against a server that a test makes up: wire, errors, cancellation, connections."""

from __future__ import annotations

import gc
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from charrnn._pb import charrnn_pb2 as pb
from charrnn.calls import ERRORS, one_of_many
from charrnn.channels import STREAMS_PER_CHANNEL
from charrnn.client import Client, Model
from charrnn.errors import (
    CharrnnError,
    RequestError,
    ServerBusyError,
    ServerError,
    ServerUnavailableError,
)
from charrnn.sampler import SamplingParams
from charrnn.stream import Chunk, Finished, Stream, Timing
from charrnn.vocab import Vocab
from tests.fakes import FINISHED, Generate, chunk, fake_server, finished_at_once, started

WAIT_S = 20


class Recorder:
    """A server's ``generate`` that keeps the requests it gets."""

    def __init__(self) -> None:
        self.requests: list[pb.GenerateRequest] = []

    def __call__(self, request: pb.GenerateRequest, context: Any) -> Iterator[pb.GenerateResponse]:
        self.requests.append(request)
        yield from (started(), FINISHED)


class Hanging:
    """A server's ``generate`` that sends one chunk and then waits until it is cancelled or let go."""

    def __init__(self) -> None:
        self.cancelled, self.let_go = threading.Event(), threading.Event()
        self.peers: set[str] = set()

    def __call__(self, request: pb.GenerateRequest, context: Any) -> Iterator[pb.GenerateResponse]:
        def ended() -> None:
            if not self.let_go.is_set():
                self.cancelled.set()
            self.let_go.set()

        self.peers.add(context.peer())
        context.add_callback(ended)
        yield from (started(), chunk("a"))
        self.let_go.wait(WAIT_S)
        yield FINISHED


def aborting(code: grpc.StatusCode, details: str) -> Generate:
    def generate(request: pb.GenerateRequest, context: Any) -> Iterator[pb.GenerateResponse]:
        yield started()
        context.abort(code, details)

    return generate


def test_a_text_comes_in_chunks_with_seed_model_and_end() -> None:
    def generate(request: pb.GenerateRequest, context: Any) -> Iterator[pb.GenerateResponse]:
        timing = pb.Timing(queue_us=1, first_char_us=2_000, total_us=3_000_000, steps=4, mean_batch=1.5)
        end = pb.Finished(reason=pb.FINISH_REASON_STOP, matched_stop="!", chars=5, timing=timing)
        yield from (
            started(2**64 - 1, "m"),
            chunk("Zoë"),
            chunk("\n🙂", 3),
            pb.GenerateResponse(finished=end),
        )

    with fake_server(generate) as address, Client(address) as client:
        stream = client.generate("a")
        assert (stream.seed, stream.model, stream.finished) == (2**64 - 1, "m", None)
        assert list(stream) == [Chunk("Zoë", 0, 3), Chunk("\n🙂", 3, 2)]
        assert stream.finished == Finished("stop", "!", 5, Timing(1e-6, 2e-3, 3.0, 4, 1.5))
        assert list(stream) == []
        assert client.generate("a").read() == "Zoë\n🙂"


def test_the_seed_can_be_asked_for_after_the_end() -> None:
    with fake_server() as address, Client(address) as client:
        stream = client.generate()
        assert stream.read() == "text"
        assert (stream.seed, stream.model) == (7, "fake")
        assert stream.finished is not None
        assert stream.finished.matched_stop is None


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, pb.GenerateRequest(prompt="")),
        ({"prompt": "é"}, pb.GenerateRequest(prompt="é")),
        ({"model": "m"}, pb.GenerateRequest(prompt="", model="m")),
        ({"temperature": 0}, pb.GenerateRequest(prompt="", sampling={"temperature": 0})),
        ({"sample_index": 3}, pb.GenerateRequest(prompt="", sampling={"sample_index": 3})),
        ({"allowed": [2, 0]}, pb.GenerateRequest(prompt="", sampling={"allowed": {"ids": [2, 0]}})),
        ({"logit_bias": {5: -1.5}}, pb.GenerateRequest(prompt="", sampling={"logit_bias": {5: -1.5}})),
        ({"regex": "a+"}, pb.GenerateRequest(prompt="", sampling={"regex": "a+"})),
        ({"seed": None}, pb.GenerateRequest(prompt="")),
        ({"seed": 0, "top_k": 0}, pb.GenerateRequest(prompt="", sampling={"seed": 0, "top_k": 0})),
        ({"stop": ["a", "b"]}, pb.GenerateRequest(prompt="", stopping={"stop": ["a", "b"]})),
        ({"chunk_chars": 1}, pb.GenerateRequest(prompt="", output={"chunk_chars": 1})),
        ({"max_chunk_delay_ms": 0}, pb.GenerateRequest(prompt="", output={"max_chunk_delay_ms": 0})),
        (
            {"ids": True, "echo": True},
            pb.GenerateRequest(prompt="", output={"ids": True, "echo_prompt": True}),
        ),
        (
            {"logprobs": True, "top_logprobs": 0},
            pb.GenerateRequest(prompt="", output={"logprobs": True, "top_logprobs": 0}),
        ),
    ],
)
def test_only_what_is_given_goes_on_the_wire(arguments: dict[str, Any], expected: pb.GenerateRequest) -> None:
    recorder = Recorder()
    with fake_server(recorder) as address, Client(address) as client:
        client.generate(**arguments).read()
    assert recorder.requests == [expected]


@pytest.mark.parametrize("token", [b"ab", bytearray(b"ab"), memoryview(b"ab")])
def test_a_token_is_any_bytes(token: Any) -> None:
    recorder = Recorder()
    with fake_server(recorder) as address, Client(address) as client:
        client.generate(resume_token=token).read()
    assert recorder.requests == [pb.GenerateRequest(resume_token=b"ab")]


def test_params_go_on_the_wire_as_a_whole() -> None:
    recorder = Recorder()
    params = SamplingParams(temperature=0.1, top_p=0.5, seed=3, stop=["x"], include_stop=True)
    with fake_server(recorder) as address, Client(address) as client:
        client.generate("p", params).read()
    sampling = {"temperature": 0.1, "top_k": 0, "top_p": 0.5, "min_p": 0, "typical_p": 1, "seed": 3}
    sampling |= {"repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0}
    sampling |= {"penalty_window": 64, "no_repeat_ngram_size": 0}
    stopping = {"max_tokens": 256, "min_tokens": 0, "stop": ["x"], "include_stop": True}
    assert recorder.requests == [pb.GenerateRequest(prompt="p", sampling=sampling, stopping=stopping)]


def test_params_and_keywords_exclude_each_other() -> None:
    with pytest.raises(TypeError, match="either params or top_k"):
        Client("127.0.0.1:1").generate("p", SamplingParams(), top_k=1)


@pytest.mark.parametrize(
    "arguments",
    [
        {"temperature": float("nan")},
        {"top_p": 1.5},
        {"max_tokens": 0},
        {"chunk_chars": -1},
        {"max_chunk_delay_ms": 2**32},
        {"prompt": "\ud800"},
        {"top_logprobs": -1},
        {"params": SamplingParams(logprobs=1)},
    ],
)
def test_what_cannot_be_served_is_refused_before_it_is_sent(arguments: dict[str, Any]) -> None:
    recorder = Recorder()
    with fake_server(recorder) as address, Client(address) as client, pytest.raises(RequestError):
        client.generate(**arguments).read()
    assert recorder.requests == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prompt": None}, "prompt is of type NoneType; give a str"),
        ({"prompt": 5}, "prompt is of type int; give a str"),
        ({"prompt": ["a"]}, "prompt is of type list; give a str"),
        ({"prompt": b"ab"}, "prompt is of type bytes; give a str"),
        ({"resume_token": 5}, "resume_token is of type int; give the bytes of finished.resume_token"),
        ({"resume_token": "6162"}, "resume_token is of type str; give the bytes of finished.resume_token"),
    ],
)
def test_what_is_no_start_of_a_text_is_refused(arguments: Any, words: str) -> None:
    with Client("127.0.0.1:1") as client:
        for ask in (lambda: client.generate(**arguments), lambda: one_of_many("id", arguments)):
            with pytest.raises(RequestError) as caught:
                ask()
            assert str(caught.value) == words


def test_every_status_has_a_class() -> None:
    assert set(ERRORS) == set(grpc.StatusCode) - {grpc.StatusCode.OK}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, RequestError),
        (grpc.StatusCode.NOT_FOUND, RequestError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ServerBusyError),
        (grpc.StatusCode.UNAVAILABLE, ServerUnavailableError),
        (grpc.StatusCode.INTERNAL, ServerError),
        (grpc.StatusCode.ABORTED, ServerError),
    ],
)
def test_a_status_becomes_an_exception_with_the_servers_words(
    code: grpc.StatusCode, expected: type[CharrnnError]
) -> None:
    with fake_server(aborting(code, "no\nsuch 'x'")) as address, Client(address, resume_s=0) as client:
        stream = client.generate()
        with pytest.raises(CharrnnError) as caught:
            stream.read()
        assert (type(caught.value), str(caught.value)) == (expected, "no such 'x'")
        assert stream.read() == ""
        assert stream.finished is None
        assert [connection.num_live for connection in client._channels._connections] == [0]


def test_no_server_is_said_plainly() -> None:
    address = f"127.0.0.1:{_closed_port()}"
    with Client(address) as client:
        for ask in (lambda: client.generate().read(), client.models):
            with pytest.raises(ServerUnavailableError, match=f"^no server answers at {address}") as caught:
                ask()
            assert caught.value.exit_code == 69


def test_a_server_that_comes_later_is_found() -> None:
    client = Client(address := f"127.0.0.1:{_closed_port()}")
    with pytest.raises(ServerUnavailableError):
        client.models()
    port = int(address.rpartition(":")[2])
    with fake_server(port=port):
        while True:  # the connection is tried again within a second; the test's timeout bounds it
            try:
                assert client.generate().read() == "text"
                break
            except ServerUnavailableError:
                continue


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost",
        ":50051",
        "host:",
        "host:0",
        "host:65536",
        "host:x",
        "host:-1",
        "http://host:1",
        "a b:1",
        "::1:1",
        "a,b:1",
    ],
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(RequestError, match="not host:port"):
        Client(address)


@pytest.mark.parametrize("address", ["localhost:1", "10.0.0.1:65535", "[::1]:50051", "a-b.example:443"])
def test_an_address_is_taken_as_it_is(address: str) -> None:
    Client(address).close()


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_that_is_none_is_refused(timeout: float) -> None:
    with pytest.raises(RequestError, match="timeout"):
        Client("localhost:1", timeout=timeout)


def test_a_timeout_that_the_server_sees_first_is_one_too() -> None:
    late = aborting(grpc.StatusCode.CANCELLED, "Timeout expired")
    for timeout, words in [(600.0, "within its timeout of 600 s"), (None, "Timeout expired")]:
        with (
            fake_server(late) as address,
            Client(address, timeout=timeout) as client,
            pytest.raises(ServerError, match=words),
        ):
            client.generate().read()


def test_a_timeout_ends_a_text() -> None:
    hanging = Hanging()
    with fake_server(hanging) as address, Client(address, timeout=0.5) as client:
        with pytest.raises(ServerError, match=r"timeout of 0\.5 s"):
            client.generate().read()
        assert hanging.cancelled.wait(WAIT_S)


def _close(streams: list[Stream]) -> None:
    streams[0].close()


def _leave(streams: list[Stream]) -> None:
    with streams[0]:
        pass


def _forget(streams: list[Stream]) -> None:
    streams.pop()
    gc.collect()


@pytest.mark.parametrize("end", [_close, _leave, _forget])
def test_an_abandoned_text_is_cancelled_on_the_server(end: Callable[[list[Stream]], None]) -> None:
    hanging = Hanging()
    with fake_server(hanging) as address, Client(address) as client:
        streams = [client.generate()]
        assert next(streams[0]).text == "a"
        assert not hanging.cancelled.is_set()
        end(streams)
        assert hanging.cancelled.wait(WAIT_S)


def test_a_closed_text_has_ended() -> None:
    hanging = Hanging()
    with fake_server(hanging) as address, Client(address) as client:
        stream = client.generate()
        next(stream)
        stream.close()
        stream.close()
        assert list(stream) == []
        assert stream.finished is None
        unread = client.generate()
        unread.close()
        with pytest.raises(CharrnnError, match="closed before it started"):
            _ = unread.seed


def test_closing_wakes_a_waiting_reader() -> None:
    hanging = Hanging()
    with fake_server(hanging) as address, Client(address) as client, ThreadPoolExecutor(1) as pool:
        stream = client.generate()
        next(stream)
        rest = pool.submit(stream.read)
        stream.close()
        assert rest.result(WAIT_S) == ""


def test_closing_the_client_ends_its_texts() -> None:
    hanging = Hanging()
    with fake_server(hanging) as address:
        client = Client(address)
        stream = client.generate()
        next(stream)
        client.close()
        client.close()
        with pytest.raises(ServerError):
            next(stream)
        with pytest.raises(CharrnnError, match="client is closed"):
            client.generate()


def test_a_text_that_breaks_off_is_an_error() -> None:
    with (
        fake_server(lambda request, context: iter((started(), chunk("a")))) as address,
        Client(address) as client,
        pytest.raises(ServerError, match="without saying why"),
    ):
        client.generate().read()


def test_events_of_a_later_service_are_passed_over() -> None:
    later = pb.GenerateResponse(request_id="x")
    with fake_server(lambda request, context: iter((started(), later, chunk("a"), FINISHED))) as address:
        assert Client(address).generate().read() == "a"


def test_a_hundred_streams_share_a_connection_and_more_open_another() -> None:
    num_streams, hanging = 2 * STREAMS_PER_CHANNEL + 1, Hanging()
    with fake_server(hanging, num_threads=num_streams + 1) as address, Client(address) as client:
        streams = [client.generate() for _ in range(num_streams)]
        assert [next(stream).text for stream in streams] == ["a"] * num_streams
        assert len(hanging.peers) == 3
        hanging.let_go.set()
        assert [stream.read() for stream in streams] == [""] * num_streams
        hanging.peers.clear()
        assert client.generate().read() == "a"
        assert len(client._channels._connections) == 3
        assert [connection.num_live for connection in client._channels._connections] == [0, 0, 0]


def test_many_threads_share_a_client() -> None:
    def echo(request: pb.GenerateRequest, context: Any) -> Iterator[pb.GenerateResponse]:
        yield from (started(), *(chunk(character) for character in request.prompt), FINISHED)

    prompts = [f"text {number}" for number in range(200)]
    with fake_server(echo) as address, Client(address) as client, ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda prompt: client.generate(prompt).read(), prompts)) == prompts


def test_a_client_does_not_survive_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client("localhost:1")
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(CharrnnError, match="fork"):
        client.generate()


def test_models() -> None:
    vocab = pb.Vocab(unit=pb.UNIT_CHAR, symbols=[10, 97])
    shape = {"cell": "lstm", "num_layers": 2, "hidden_size": 16, "precision": "int8", "state_bytes": 256}
    models = (
        pb.Model(name="m", version="v", digest="d", vocab=vocab, bpc=0, end_token=0, **shape),
        pb.Model(name="n", vocab=vocab, **shape),
    )
    with fake_server(finished_at_once, models) as address, Client(address) as client:
        assert client.models() == [
            Model(name="m", version="v", digest="d", vocab=Vocab([10, 97]), bpc=0.0, end_token=0, **shape),
            Model(name="n", version="", digest="", vocab=Vocab([10, 97]), bpc=None, end_token=None, **shape),
        ]


def _closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]

"""Texts outlive their server: it is killed, and they go on with the next one."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import grpc

from charrnn import Client
from charrnn._pb import charrnn_pb2 as pb
from tests.servers import COMMAND, run_charrnn, running_server

LENGTH = 20_000


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def serve(bundle: Path, port: int, *options: str) -> subprocess.Popen[str]:
    command = [
        *COMMAND,
        "serve",
        str(bundle),
        "--listen",
        f"127.0.0.1:{port}",
        "--drain-timeout",
        "0",
        *options,
    ]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    assert re.search(r"127\.0\.0\.1:\d+", next(iter(server.stderr), "")), "the server ended at its start"
    return server


def end(server: subprocess.Popen[str], number: int) -> None:
    server.send_signal(number)
    server.communicate(timeout=30)


def test_texts_go_on_after_kill_9_and_after_sigterm(tiny_bundle: Path) -> None:
    port = free_port()
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


def key_file(folder: Path) -> str:
    path = folder / "resume.key"
    path.write_bytes(os.urandom(32))
    path.chmod(0o600)
    return str(path)


def num_steps(address: str) -> int:
    """Steps of all texts of a server so far."""
    with grpc.insecure_channel(address) as channel:
        get_stats = channel.unary_unary(
            "/charrnn.v1.CharRnn/GetStats",
            request_serializer=pb.GetStatsRequest.SerializeToString,
            response_deserializer=pb.GetStatsResponse.FromString,
        )
        return sum(get_stats(pb.GetStatsRequest()).models[0].batch.counts)


def test_a_server_of_the_same_key_goes_on_where_one_stopped(tiny_bundle: Path, tmp_path: Path) -> None:
    key, ports = key_file(tmp_path), [free_port(), free_port()]
    servers = [serve(tiny_bundle, port, "--resume-key-file", key) for port in ports]
    sampling = {"temperature": 0.9, "seed": 3, "stop": ["zqx"], "repetition_penalty": 1.2}
    try:
        with Client(f"127.0.0.1:{ports[0]}", resume_s=0) as client:
            # The server ends long before the text.
            stream = client.generate(max_tokens=1_000_000, resumable=True, chunk_chars=4096, **sampling)
            begun = next(stream).text
            servers[0].send_signal(signal.SIGTERM)
            begun += stream.read()
        assert stream.finished is not None
        token = stream.finished.resume_token
        assert token is not None
        assert stream.finished.reason == "drained"
        address, length = f"127.0.0.1:{ports[1]}", len(begun) + 1000
        with Client(address) as client:
            rest = client.generate(resume_token=token, max_tokens=length).read()
            assert num_steps(address) <= 1001
            assert begun + rest == client.generate(max_tokens=length, **sampling).read()
    finally:
        for server in servers:
            end(server, signal.SIGKILL)


def test_a_drained_text_goes_on_by_itself_whatever_the_next_server_knows(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    port = free_port()
    # The last has a key of its own: the text is made again from its beginning.
    options = [["--resume-key-file", key_file(tmp_path)]] * 2 + [[]]
    server = serve(tiny_bundle, port, *options[0])
    try:
        with Client(f"127.0.0.1:{port}") as client:
            stream = client.generate(max_tokens=LENGTH, temperature=0.9)
            text = next(stream).text
            for option in options[1:]:
                end(server, signal.SIGTERM)
                server = serve(tiny_bundle, port, *option)
                text += "".join(next(stream).text for _ in range(20))
            text += stream.read()
            assert text == client.generate(max_tokens=LENGTH, temperature=0.9, seed=stream.seed).read()
    finally:
        end(server, signal.SIGKILL)


def test_the_command_saves_and_resumes(tiny_bundle: Path, tmp_path: Path) -> None:
    token, again = tmp_path / "token", tmp_path / "again"
    with running_server(tiny_bundle) as address:
        asked = ["generate", "--server", address, "--seed", "5", "--temperature", "0.9"]
        whole = run_charrnn(*asked, "--max-tokens", "90").stdout
        first = run_charrnn(*asked, "--max-tokens", "40", "--save-resume", token)
        resume = ["generate", "--server", address, "--resume", token]
        second = run_charrnn(*resume, "--max-tokens", "90", "--save-resume", again)
        assert (first.returncode, second.returncode) == (0, 0), second.stderr
        assert (first.stdout + second.stdout, token.exists(), again.exists()) == (whole, True, True)
        for arguments, words in [
            ([*resume], "max-tokens is 40"),
            ([*resume, "--top-k", "3"], "--top-k is in the token"),
            ([*resume, "--max-tokens", "40"], "max-tokens is 40"),
        ]:
            refused = run_charrnn(*arguments)
            assert refused.returncode != 0
            assert words in refused.stderr
        stopped = run_charrnn(*asked, "--stop", whole[7], "--save-resume", tmp_path / "none")
        assert "the text cannot go on (stop)" in stopped.stderr
        assert not (tmp_path / "none").exists()


def test_a_key_file_that_others_may_read_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    key = tmp_path / "resume.key"
    for content, mode, words in [(b"k" * 32, 0o644, "chmod 600"), (b"k" * 31, 0o600, "has 31 bytes")]:
        key.write_bytes(content)
        key.chmod(mode)
        refused = run_charrnn("serve", tiny_bundle, "--listen", "127.0.0.1:0", "--resume-key-file", key)
        assert refused.returncode != 0
        assert words in refused.stderr

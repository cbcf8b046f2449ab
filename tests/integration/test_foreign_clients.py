"""Clients that know nothing of charrnn: what others made for any gRPC server works on this one, unchanged.

Each is skipped where it is not installed:

    go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest
    go install github.com/grpc-ecosystem/grpc-health-probe@latest
    go install github.com/bojand/ghz/cmd/ghz@latest
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from charrnn import Client
from tests.servers import running_server

PROTO = Path(__file__).parents[2] / "proto"
GO_BIN = Path.home() / "go" / "bin"
SEARCHED = os.pathsep.join([os.environ.get("PATH", ""), str(GO_BIN)])


@pytest.fixture(scope="module")
def address(tiny_bundle: Path) -> Iterator[str]:
    with running_server(tiny_bundle) as found:
        yield found


@pytest.fixture(scope="module")
def text(address: str) -> str:
    with Client(address) as client:
        return client.generate("The ", seed=5, max_tokens=40).read()


def run(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    if (found := shutil.which(tool, path=SEARCHED)) is None:
        pytest.skip(f"{tool} is not installed")
    return subprocess.run([found, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_grpcurl_finds_the_service_by_reflection_and_reads_a_text(address: str, text: str) -> None:
    listed = run("grpcurl", "-plaintext", address, "list").stdout.split()
    assert {"charrnn.v1.CharRnn", "grpc.health.v1.Health"} <= set(listed)
    asked = {"prompt": "The ", "sampling": {"seed": "5"}, "stopping": {"max_tokens": 40}}
    call = ("-plaintext", "-d", json.dumps(asked), address, "charrnn.v1.CharRnn/Generate")
    done = run("grpcurl", *call)
    assert done.returncode == 0, done.stderr
    events = _documents(done.stdout)
    assert [next(iter(event)) for event in (events[0], events[-1])] == ["started", "finished"]
    assert "".join(event["chunk"]["text"] for event in events[1:-1]) == text


def test_grpcurl_shows_what_is_wrong_with_a_request(address: str) -> None:
    asked = json.dumps({"sampling": {"top_p": 2}})
    done = run("grpcurl", "-plaintext", "-d", asked, address, "charrnn.v1.CharRnn/Generate")
    assert done.returncode != 0
    assert "InvalidArgument" in done.stderr
    assert "top_p" in done.stderr


def test_grpc_health_probe_finds_server_and_model_healthy(address: str) -> None:
    for service in ("", "charrnn.v1.CharRnn", "tiny"):
        done = run("grpc-health-probe", f"-addr={address}", f"-service={service}")
        assert done.returncode == 0, done.stderr
        assert "status: SERVING" in done.stderr + done.stdout
    assert run("grpc-health-probe", f"-addr={address}", "-service=absent").returncode != 0


def test_ghz_loads_it(address: str) -> None:
    asked = json.dumps({"stopping": {"max_tokens": 10}})
    call = ("--insecure", "--call", "charrnn.v1.CharRnn.Generate", "--data", asked)
    done = run("ghz", *call, "--total", "50", "--concurrency", "5", "--format", "json", address)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["statusCodeDistribution"] == {"OK": 50}


STUBS = """
import sys
import grpc
from charrnn.v1 import charrnn_pb2, charrnn_pb2_grpc

with grpc.insecure_channel(sys.argv[1]) as channel:
    request = charrnn_pb2.GenerateRequest(
        prompt="The ",
        sampling=charrnn_pb2.Sampling(seed=5),
        stopping=charrnn_pb2.Stopping(max_tokens=40),
    )
    for response in charrnn_pb2_grpc.CharRnnStub(channel).Generate(request):
        print(response.chunk.text, end="")
"""


def test_stubs_that_a_user_generates_work(address: str, text: str, tmp_path: Path) -> None:
    """In a process without charrnn, whose folder of the same name would stand in the way."""
    proto = PROTO / "charrnn" / "v1" / "charrnn.proto"
    out = (f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}")
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", *out, str(proto)]
    subprocess.run(command, check=True, capture_output=True)
    for package in ("charrnn", "charrnn/v1"):
        (tmp_path / package / "__init__.py").touch()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-W", "error", "-c", STUBS, address]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == text


def _documents(printed: str) -> list[dict[str, dict[str, str]]]:
    """JSON documents that follow one another."""
    found, decoder, at = [], json.JSONDecoder(), 0
    while at < len(printed.rstrip()):
        document, at = decoder.raw_decode(printed, at)
        found.append(document)
        while at < len(printed) and printed[at].isspace():
            at += 1
    return found

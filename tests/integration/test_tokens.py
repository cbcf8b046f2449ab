"""``charrnn serve --token-file``: every RPC of every service asks for a token, and none is ever told."""

from __future__ import annotations

import asyncio
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from charrnn import AsyncClient, Client
from charrnn.admin import Admin
from charrnn.errors import RequestError, ServerBusyError, ServerError
from tests.certificates import Authority, Served, serving, tls_options
from tests.scrapes import read, series
from tests.servers import run_charrnn

ALICE, BOB, WRONG, ROOT = (f"{name}-0123456789abcdef" for name in ("alice", "bob", "wrong", "root"))
YOUNGER = "grpc.reflection.v1.ServerReflection"
"""Which its elder names and does not describe."""
OPEN = {"/grpc.health.v1.Health/Check"}
REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED)


def _write(path: Path, text: str) -> Path:
    path.touch(0o600)
    path.write_text(text)
    return path


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return _write(tmp_path / "tokens", f"# who may ask\nalice:{ALICE}\n\n{BOB}\nadmin:{ROOT}\n")


@pytest.fixture
def served(tiny_bundle: Path, tokens: Path, tmp_path: Path) -> Iterator[Served]:
    with serving(tiny_bundle, tmp_path / "log", "--token-file", str(tokens)) as served:
        yield served


def _methods(channel: grpc.Channel) -> Iterator[tuple[str, bool, bool]]:
    """Path of every RPC that reflection tells of, and whether it streams requests and responses."""
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    for service in database.get_services():
        if service == YOUNGER:
            yield f"/{service}/ServerReflectionInfo", True, True
            continue
        found = pool.FindServiceByName(service)
        for method in found.methods:
            path = f"/{service}/{method.name}"
            yield path, method.client_streaming, method.server_streaming


def _code(channel: grpc.Channel, method: tuple[str, bool, bool], token: str | None) -> grpc.StatusCode:
    """How a call with an empty message ends, or begins to be answered."""
    path, asks_many, answers_many = method
    kind = f"{'stream' if asks_many else 'unary'}_{'stream' if answers_many else 'unary'}"
    call: Callable[..., Any] = getattr(channel, kind)(path)
    metadata = [("authorization", f"Bearer {token}")] if token else []
    try:
        answer = call(iter([b""]) if asks_many else b"", metadata=metadata, timeout=60)
        if answers_many:
            next(answer)
            answer.cancel()
    except StopIteration:
        return grpc.StatusCode.OK
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_no_rpc_of_any_service_answers_without_a_token(served: Served) -> None:
    signed = Client(served.address, token=ALICE)
    with signed, grpc.insecure_channel(served.address) as channel:
        methods = list(_methods(signed._channels.lease()))
        paths = {path for path, *_ in methods}
        assert paths >= {
            "/charrnn.v1.CharRnn/Generate",
            "/charrnn.v1.CharRnn/ListModels",
            "/grpc.health.v1.Health/Watch",
            f"/{YOUNGER}/ServerReflectionInfo",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            *OPEN,
        }
        methods.append(("/no.such.Service/Method", False, False))
        for method in methods:
            for token in (None, WRONG, ALICE[:-1]):
                code = _code(channel, method, token)
                assert (code is grpc.StatusCode.OK) == (method[0] in OPEN), (method, token)
                assert method[0] in OPEN or code in REFUSED, (method, token, code)
            assert _code(channel, method, ALICE) not in REFUSED, method


def test_only_the_token_named_admin_does_what_admin_offers(served: Served) -> None:
    with Client(served.admin, token=ROOT) as signed, grpc.insecure_channel(served.admin) as channel:
        methods = list(_methods(signed._channels.lease()))
        assert {path for path, *_ in methods} >= {"/charrnn.v1.Admin/LoadModel", "/charrnn.v1.Admin/Drain"}
        for method in methods:
            assert all(_code(channel, method, token) in REFUSED for token in (None, WRONG)), method
            assert _code(channel, method, ALICE) is grpc.StatusCode.PERMISSION_DENIED, method
    with Admin(served.admin, token=ROOT) as admin, pytest.raises(RequestError, match="tiny"):
        admin.unload("large")
    done = run_charrnn("admin", "drain", served.admin, "--token", ALICE)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "only the token named admin" in done.stderr
    assert served.wait_for("auth: alice: ")
    with Client(served.address, token=ALICE) as client:
        assert client.models()


def test_tokens_are_never_told_and_failures_are(served: Served) -> None:
    with Client(served.address, token=WRONG) as client:
        with pytest.raises(ServerError, match="not known here") as raised:
            client.models()
        assert WRONG not in str(raised.value)
        assert served.address in str(raised.value)
    with Client(served.address) as client, pytest.raises(ServerError, match="no token"):
        client.generate().read()
    for token in (ALICE, BOB):
        with Client(served.address, token=token) as client:
            assert len(client.generate(max_tokens=5).read()) == 5
    served.wait_for("auth: 127.0.0.1: ", 2)
    assert not [line for line in served.lines() if any(token in line for token in (ALICE, BOB, WRONG))]


@pytest.mark.parametrize("encrypts", [False, True])
def test_asyncio_sends_a_token_too(tiny_bundle: Path, tokens: Path, tmp_path: Path, encrypts: bool) -> None:
    authority = Authority(tmp_path)
    options = tls_options(authority.issue("server")) if encrypts else ()
    trust: dict[str, Any] = {"ca": authority.path} if encrypts else {}

    async def ask(address: str, token: str | None) -> str:
        async with AsyncClient(address, token=token, **trust) as client:
            assert await client.models()
            return await client.generate(max_tokens=5).read()

    with serving(tiny_bundle, tmp_path / "log", "--token-file", str(tokens), *options) as served:
        assert len(asyncio.run(ask(served.address, ALICE))) == 5
        with pytest.raises(ServerError, match="no token"):
            asyncio.run(ask(served.address, None))
        with Client(served.address, token=ALICE, **trust) as client:
            assert len(client.generate(max_tokens=5).read()) == 5


def _failure(client: Client) -> ServerError:
    with pytest.raises(ServerError) as raised:
        client.models()
    return raised.value


def test_failures_of_a_peer_are_limited(served: Served) -> None:
    with Client(served.address, token=WRONG) as client:
        failures = (_failure(client) for _ in range(1000))  # a second forgives one
        limited = next(failure for failure in failures if isinstance(failure, ServerBusyError))
    assert "wait a second" in str(limited)
    with Client(served.address, token=ALICE) as client:
        assert client.models()


def _denied(served: Served, token: str = ALICE) -> dict[str, float]:
    """What was not let in so far, by reason."""
    found = series(read(served.metrics, token))
    head = 'charrnn_denied_total{reason="'
    return {
        name.removeprefix(head).removesuffix('"}'): value
        for name, value in found.items()
        if name.startswith(head) and value
    }


def test_who_is_not_let_in_is_counted(served: Served) -> None:
    assert _denied(served) == {}
    with Client(served.address, token=WRONG) as wrong, Client(served.address) as nobody:
        for client in (wrong, wrong, nobody):
            _failure(client)
    assert run_charrnn("admin", "drain", served.admin, "--token", ALICE).returncode == 1
    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        read(served.metrics, None)
    refused.value.close()
    assert _denied(served) == {"wrong_token": 2, "no_token": 2, "not_admin": 1}


def test_tokens_change_while_a_text_goes_on(served: Served, tokens: Path) -> None:
    with Client(served.address, token=ALICE) as alice, alice.generate(max_tokens=1_000_000) as live:
        next(live)
        _write(tokens, "new:0123456789-0123456789\n")
        served.hang_up()
        served.wait_for("auth: tokens were read again")
        with pytest.raises(ServerError, match="not known here"):
            alice.models()
        with Client(served.address, token="0123456789-0123456789") as new:
            assert new.models()
            _write(tokens, "short\n")
            served.hang_up()
            assert "line 1" in served.wait_for("auth: tokens stay as they were")
            assert new.models()
        assert sum(len(next(live).text) for _ in range(100)) >= 100


def test_metrics_want_a_token_and_healthz_does_not(served: Served) -> None:
    for token in (None, WRONG):
        with pytest.raises(urllib.error.HTTPError, match="401") as refused:
            read(served.metrics, token)
        refused.value.close()
    assert "charrnn_slots" in read(served.metrics, ALICE)
    assert read(served.metrics.removesuffix("/metrics") + "/healthz", None) == "serving\n"


def test_a_client_has_so_many_texts_at_once(tiny_bundle: Path, tokens: Path, tmp_path: Path) -> None:
    options = ["--token-file", str(tokens), "--max-streams-per-client", "2"]
    with (
        serving(tiny_bundle, tmp_path / "log", *options) as served,
        Client(served.address, token=ALICE) as alice,
        Client(served.address, token=BOB) as bob,
    ):
        live = [alice.generate(max_tokens=1_000_000) for _ in range(2)]
        for stream in live:
            next(stream)
        with pytest.raises(ServerBusyError, match="max_streams_per_client is 2"):
            alice.generate(max_tokens=1).read()
        assert len(bob.generate(max_tokens=5).read()) == 5
        assert _denied(served) == {"client_full": 1}
        for stream in live:
            stream.close()


@pytest.mark.parametrize(
    ("text", "mode", "expected"),
    [("", 0o600, "no token"), ("short", 0o600, "line 1"), (f"a:{ALICE}", 0o644, "chmod 600")],
)
def test_a_file_that_is_not_right_is_told_in_a_line(
    tiny_bundle: Path, tmp_path: Path, text: str, mode: int, expected: str
) -> None:
    path = _write(tmp_path / "tokens", text)
    path.chmod(mode)
    done = run_charrnn("serve", tiny_bundle, "--listen", "127.0.0.1:0", "--token-file", path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    assert expected in done.stderr
    assert ALICE not in done.stderr


def test_generate_and_bench_send_a_token(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    load = [served.address, "--streams", "2", "--requests", "6", "--warmup", "0", "--max-tokens", "20"]
    for command, setting in (
        (["generate", "--server", served.address], "GENERATE"),
        (["bench", *load], "BENCH"),
    ):
        refused = run_charrnn(*command)
        assert refused.returncode == 1
        assert "no token" in refused.stderr
        monkeypatch.setenv(f"CHARRNN_{setting}_TOKEN", ALICE)
        done = run_charrnn(*command)
        assert done.returncode == 0, done.stderr
        assert ALICE not in done.stdout + done.stderr


def test_a_token_does_not_leave_this_machine_unencrypted() -> None:
    with pytest.raises(RequestError, match="unencrypted") as raised:
        Client("models.example.org:1", token=ALICE)
    assert ALICE not in str(raised.value)
    Client("models.example.org:1", token=ALICE, insecure=True).close()
    Client("models.example.org:1", token=ALICE, tls=True).close()
    with pytest.raises(RequestError, match="no header"):
        Client("127.0.0.1:1", token="two words")
    done = run_charrnn("bench", "models.example.org:1", "--token", ALICE)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)

"""``charrnn serve`` with TLS and its clients: texts, refusals in plain words, certificates that change."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import resource
import shutil
import socket
import ssl
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from charrnn import AsyncClient, Client
from charrnn.errors import CharrnnError, ConfigError, RequestError, ServerUnavailableError
from tests.certificates import PAST, Authority, Pair, Served, client_options, serving, tls_options
from tests.servers import run_charrnn, running_server

ENDLESS = 1_000_000


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("theirs"))


@pytest.fixture(scope="module")
def encrypted(
    tiny_bundle: Path, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    log = tmp_path_factory.mktemp("encrypted") / "log"
    with serving(tiny_bundle, log, *tls_options(authority.issue("server"))) as served:
        yield served


@pytest.fixture(scope="module")
def mutual(
    tiny_bundle: Path, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    log = tmp_path_factory.mktemp("mutual") / "log"
    options = [*tls_options(authority.issue("mutual")), "--client-ca", authority.path]
    with serving(tiny_bundle, log, *options) as served:
        yield served


def _text(address: str, **options: Any) -> str:
    with Client(address, **options) as client:
        return client.generate("The ", seed=1, max_tokens=200).read()


def test_a_text_is_the_same_encrypted(tiny_bundle: Path, encrypted: Served, authority: Authority) -> None:
    with running_server(tiny_bundle) as address:
        plain = _text(address)
    assert _text(encrypted.address, ca=authority.path) == plain
    by_name = encrypted.address.replace("127.0.0.1", "localhost")
    assert _text(by_name, ca=authority.path) == plain
    asked = ["--prompt", "The ", "--seed", "1", "--max-tokens", "200"]
    done = run_charrnn("generate", "--server", encrypted.address, "--ca", authority.path, *asked)
    assert (done.returncode, done.stdout.removesuffix("\n")) == (0, plain)


def test_a_text_goes_on_encrypted_and_certified(mutual: Served, authority: Authority, tmp_path: Path) -> None:
    who = client_options(authority.path, authority.issue("goes-on"))
    ask, token = ["generate", "--server", mutual.address, *who], tmp_path / "token"
    whole = run_charrnn(*ask, "--seed", "1", "--max-tokens", "60")
    begun = run_charrnn(*ask, "--seed", "1", "--max-tokens", "20", "--save-resume", token)
    rest = run_charrnn(*ask, "--resume", token, "--max-tokens", "60")
    assert (rest.returncode, begun.stdout + rest.stdout) == (0, whole.stdout), rest.stderr


def test_a_client_is_known_by_its_certificate(mutual: Served, authority: Authority) -> None:
    alice = authority.issue("alice", "alice.example.org", common_name="alice")
    assert len(_text(mutual.address, ca=authority.path, cert=alice.cert, key=alice.key)) == 200


def test_asyncio_speaks_tls_too(mutual: Served, authority: Authority) -> None:
    pair = authority.issue("loop", "loop.example.org")

    async def read(**options: Any) -> str:
        async with AsyncClient(mutual.address, **options) as client:
            return await client.generate("The ", seed=1, max_tokens=200).read()

    known: dict[str, Any] = {"ca": authority.path, "cert": pair.cert, "key": pair.key}
    assert asyncio.run(read(**known)) == _text(mutual.address, **known)
    with pytest.raises(ServerUnavailableError, match="wants a certificate"):
        asyncio.run(read(ca=authority.path))


def _refusals(authority: Authority, other: Authority) -> dict[str, tuple[str, dict[str, Any], str]]:
    """Which server is asked, with what, and what the client is told."""
    stranger = other.issue("stranger", "stranger.example.org")
    ours = {"ca": authority.path}
    return {
        "wrong CA": ("encrypted", {"ca": other.path}, "authority that is not trusted"),
        "system's CAs": ("encrypted", {"tls": True}, "authority that is not trusted"),
        "wrong name": ("encrypted", {**ours, "server_name": "example.org"}, "is not for example.org"),
        "plaintext to TLS": ("encrypted", {}, "speaks TLS"),
        "no certificate": ("mutual", ours, "wants a certificate of this client"),
        "foreign certificate": (
            "mutual",
            {**ours, "cert": stranger.cert, "key": stranger.key},
            "does not take this client's certificate",
        ),
        "plaintext to mutual TLS": ("mutual", {}, "speaks TLS"),
    }


CASES = (
    "wrong CA",
    "system's CAs",
    "wrong name",
    "plaintext to TLS",
    "no certificate",
    "foreign certificate",
    "plaintext to mutual TLS",
)


@pytest.mark.parametrize("case", CASES)
def test_what_keeps_them_apart_is_told_in_a_line(
    case: str, encrypted: Served, mutual: Served, authority: Authority, other: Authority
) -> None:
    name, options, expected = _refusals(authority, other)[case]
    served = {"encrypted": encrypted, "mutual": mutual}[name]
    with Client(served.address, timeout=60, **options) as client:
        with pytest.raises(ServerUnavailableError, match=expected) as raised:
            client.generate(max_tokens=1).read()
        assert served.address in str(raised.value)
        with pytest.raises(ServerUnavailableError, match=expected):
            client.models()
    spelt = {"ca": "--ca", "cert": "--client-cert", "key": "--client-key", "server_name": "--server-name"}
    words = [word for key, value in options.items() if key != "tls" for word in (spelt[key], value)]
    words += ["--tls"] if "tls" in options else []
    for command in (
        ["generate", "--server", served.address, *words],
        ["bench", served.address, "--streams", "1", "--requests", "1", "--warmup", "0", *words],
    ):
        done = run_charrnn(*command)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (69, "", 1), done.stderr
        assert expected in done.stderr


def test_tls_to_plaintext_and_an_expired_certificate(
    tiny_bundle: Path, authority: Authority, tmp_path: Path
) -> None:
    with (
        running_server(tiny_bundle) as address,
        pytest.raises(ServerUnavailableError, match="does not speak TLS"),
    ):
        _text(address, ca=authority.path, timeout=60)
    expired = authority.issue("expired", not_before=PAST, not_after=PAST + datetime.timedelta(days=1))
    with serving(tiny_bundle, tmp_path / "log", *tls_options(expired)) as served:
        with pytest.raises(ServerUnavailableError, match="has expired"):
            _text(served.address, ca=authority.path, timeout=60)
        assert "expired" in served.wait_for(expired.cert)


def test_a_failed_handshake_is_a_line_and_costs_nobody_else(encrypted: Served, authority: Authority) -> None:
    host, _, port = encrypted.address.rpartition(":")
    with contextlib.ExitStack() as opened:
        silent = [opened.enter_context(socket.create_connection((host, int(port)))) for _ in range(10)]
        garbage = opened.enter_context(socket.create_connection((host, int(port))))
        garbage.sendall(b"GET / HTTP/1.1\r\n\r\n")
        me = "{}:{}".format(*garbage.getsockname())
        assert encrypted.wait_for(me).startswith("tls: ")
        assert len(_text(encrypted.address, ca=authority.path)) == 200
        assert sum(me in line for line in encrypted.lines()) == 1
        # Those who say nothing at all are not waited for for ever.
        assert "no handshake within" in encrypted.wait_for("tls: {}:{}: no".format(*silent[0].getsockname()))


def test_a_server_out_of_file_descriptors_takes_connections_again(
    tiny_bundle: Path, authority: Authority, tmp_path: Path
) -> None:
    with serving(tiny_bundle, tmp_path / "log", *tls_options(authority.issue("full"))) as served:
        host, _, port = served.address.rpartition(":")
        limits = resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE)
        num_open = len(list(Path(f"/proc/{served.process.pid}/fd").iterdir()))
        resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE, (num_open + 10, limits[1]))
        with contextlib.ExitStack() as opened:
            for _ in range(50):
                opened.enter_context(socket.create_connection((host, int(port))))
            with pytest.raises(CharrnnError), Client(served.address, ca=authority.path, timeout=1) as client:
                client.models()
        assert len(_text(served.address, ca=authority.path)) == 200


@pytest.mark.parametrize(("version", "is_taken"), [("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)])
def test_versions(encrypted: Served, authority: Authority, version: str, is_taken: bool) -> None:
    context = ssl.create_default_context(cafile=authority.path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.set_alpn_protocols(["h2"])
    host, _, port = encrypted.address.rpartition(":")
    with socket.create_connection((host, int(port)), 60) as connection:
        if is_taken:
            with context.wrap_socket(connection, server_hostname=host) as made:
                assert made.selected_alpn_protocol() == "h2"
        else:
            with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
                context.wrap_socket(connection, server_hostname=host)


def _install(pair: Pair, at: Pair) -> None:
    shutil.copy(pair.cert, at.cert)
    shutil.copy(pair.key, at.key)


def test_certificates_change_under_a_live_text(
    tiny_bundle: Path, authority: Authority, other: Authority, tmp_path: Path
) -> None:
    at = Pair(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    first, second = authority.issue("first"), other.issue("second")
    _install(first, at)
    with (
        serving(tiny_bundle, tmp_path / "log", *tls_options(at)) as served,
        Client(served.address, ca=authority.path) as client,
        client.generate(max_tokens=ENDLESS) as live,
    ):
        next(live)
        _install(second, at)
        served.hang_up()
        served.wait_for("tls: certificates were read again")
        with pytest.raises(ServerUnavailableError, match="not trusted"):
            _text(served.address, ca=authority.path, timeout=60)
        assert len(_text(served.address, ca=other.path)) == 200
        # A pair that does not fit: the one before stays.
        shutil.copy(first.key, at.key)
        served.hang_up()
        assert at.key in served.wait_for("tls: certificates stay as they were")
        assert len(_text(served.address, ca=other.path)) == 200
        assert sum(len(next(live).text) for _ in range(100)) >= 100


def test_files_that_are_not_right_are_told_in_a_line(
    tiny_bundle: Path, authority: Authority, other: Authority, tmp_path: Path
) -> None:
    pair, foreign = authority.issue("told"), other.issue("told")
    (empty := tmp_path / "empty.pem").touch(0o600)
    open_key = shutil.copy(pair.key, tmp_path / "open.pem")
    Path(open_key).chmod(0o644)
    no_key = shutil.copy(pair.cert, tmp_path / "cert.pem")
    Path(no_key).chmod(0o600)
    for options, code, expected in (
        (("--tls-cert", pair.cert), 2, "--tls-key"),
        (("--client-ca", authority.path), 2, "--tls-cert"),
        (("--tls-cert", pair.cert, "--tls-key", str(open_key)), 3, "chmod 600"),
        (("--tls-cert", pair.cert, "--tls-key", foreign.key), 3, "do not fit"),
        (("--tls-cert", pair.cert, "--tls-key", str(no_key)), 3, "no private key"),
        (("--tls-cert", str(empty), "--tls-key", pair.key), 3, "no certificate"),
        (("--tls-cert", str(tmp_path / "none"), "--tls-key", pair.key), 3, "cannot read"),
        ((*tls_options(pair), "--client-ca", str(empty)), 3, "no certificate"),
    ):
        done = run_charrnn("serve", tiny_bundle, "--listen", "127.0.0.1:0", *options)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), done.stderr
        assert expected in done.stderr


def test_files_of_a_client_are_looked_at_before_it_calls(authority: Authority, tmp_path: Path) -> None:
    (empty := tmp_path / "empty.pem").touch()
    pair, second = authority.issue("one"), authority.issue("another")
    with pytest.raises(ConfigError, match="authorities"):
        Client("127.0.0.1:1", ca=str(empty))
    with pytest.raises(ConfigError, match="authorities"):
        Client("127.0.0.1:1", ca=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="with its key"):
        Client("127.0.0.1:1", cert=pair.cert, key=second.key)
    with pytest.raises(RequestError, match="give both"):
        Client("127.0.0.1:1", cert=pair.cert)
    with pytest.raises(RequestError, match="server_name"):
        Client("127.0.0.1:1", server_name="example.org")


def test_bench_loads_a_server_that_wants_to_know_it(mutual: Served, authority: Authority) -> None:
    load = ["--streams", "4", "--requests", "20", "--warmup", "0", "--max-tokens", "50", "--check"]
    known = client_options(authority.path, authority.issue("bench", "bench.example.org"))
    done = run_charrnn("bench", mutual.address, *load, *known)
    assert done.returncode == 0, done.stderr


def _page(url: str, context: ssl.SSLContext) -> str:
    with urllib.request.urlopen(url, timeout=60, context=context) as response:
        return str(response.read().decode())


def test_metrics_are_encrypted_too_and_healthz_asks_for_no_certificate(
    mutual: Served, authority: Authority
) -> None:
    context = ssl.create_default_context(cafile=authority.path)
    assert mutual.metrics.startswith("https://")
    healthz = mutual.metrics.removesuffix("/metrics") + "/healthz"
    assert _page(healthz, context) == "serving\n"
    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        _page(mutual.metrics, context)
    refused.value.close()
    prometheus = authority.issue("prometheus", "prometheus.example.org")
    context.load_cert_chain(prometheus.cert, prometheus.key)
    assert "charrnn_slots" in _page(mutual.metrics, context)


def test_other_machines_need_more_than_encryption(tiny_bundle: Path, authority: Authority) -> None:
    encrypted = tls_options(authority.issue("bind"))
    done = run_charrnn("serve", tiny_bundle, "--listen", "0.0.0.0:0", *encrypted)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "--token-file" in done.stderr

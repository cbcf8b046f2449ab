"""What keeps ``charrnn serve`` from starting is told in one line, with an exit code, and soon."""

from __future__ import annotations

import shutil
import socket
import time
from pathlib import Path

import pytest

from tests.servers import run_charrnn

FREE = ("--listen", "127.0.0.1:0")

CASES: dict[str, tuple[tuple[str, ...], int, str]] = {
    "no bundle": (FREE, 2, "BUNDLE"),
    "no such bundle": (("none", *FREE), 3, "none"),
    "a file": (("file", *FREE), 3, "file"),
    "an empty folder": (("empty", *FREE), 3, "manifest.json"),
    "a damaged manifest": (("damaged", *FREE), 3, "manifest.json"),
    "a damaged graph": (("cut", *FREE), 3, "sha256"),
    "the same twice": (("tiny", "tiny", *FREE), 2, "tiny"),
    "a precision it has not": (("tiny", "--precision", "fp16", *FREE), 3, "fp16"),
    "port in use": (("tiny", "--listen", "TAKEN"), 3, "TAKEN"),
    "port of metrics in use": (("tiny", *FREE, "--metrics", "TAKEN"), 3, "TAKEN"),
    "port of admin in use": (("tiny", *FREE, "--admin", "TAKEN"), 3, "TAKEN"),
    "no address": (("tiny", "--listen", "here"), 2, "host:port"),
    "an address of nobody here": (("tiny", "--listen", "192.0.2.1:1", "--insecure"), 3, "192.0.2.1:1"),
    "all the world": (("tiny", "--listen", "0.0.0.0:0"), 2, "--insecure"),
    "all the world of IPv6": (("tiny", "--listen", "[::]:0"), 2, "--insecure"),
    "admin for all the world": (("tiny", *FREE, "--admin", "0.0.0.0:0", "--insecure"), 2, "admin"),
    "no workers": (("tiny", "--workers", "0", *FREE), 2, "--workers"),
    "a queue below none": (("tiny", "--queue", "-1", *FREE), 2, "--queue"),
    "time that runs backwards": (("tiny", "--drain-timeout", "-1", *FREE), 2, "--drain-timeout"),
    "an option of nobody": (("tiny", "--wrokers", "1", *FREE), 2, "--workers"),
    "a settings file that is not there": (("tiny", "--config", "none.toml", *FREE), 3, "none.toml"),
    "a settings file that is none": (("tiny", "--config", "file", *FREE), 3, "file"),
    "a setting of nobody": (("tiny", "--config", "unknown.toml", *FREE), 3, "wrokers"),
    "a setting of another kind": (("tiny", "--config", "wrong.toml", *FREE), 2, "queue"),
    "no tokens": (("tiny", "--token-file", "none", *FREE), 3, "none"),
    "a certificate alone": (("tiny", "--tls-cert", "file", *FREE), 2, "--tls-key"),
    "a key of resumption too short": (("tiny", "--resume-key-file", "key", *FREE), 3, "32"),
}


@pytest.fixture(scope="module")
def folder(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all that the cases name lies."""
    folder = tmp_path_factory.mktemp("refused")
    for name in ("tiny", "damaged", "cut"):
        shutil.copytree(tiny_bundle, folder / name)
    (folder / "damaged" / "manifest.json").write_text("{")
    graph = folder / "cut" / "step.int8.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    (folder / "empty").mkdir()
    (folder / "file").write_text("no settings, no tokens and no certificate")
    (folder / "unknown.toml").write_text("[serve]\nwrokers = 1\n")
    (folder / "wrong.toml").write_text('[serve]\nqueue = "long"\n')
    (folder / "key").touch(0o600)
    (folder / "key").write_bytes(b"short")
    return folder


@pytest.mark.parametrize("case", CASES)
def test_one_line_and_an_exit_code(case: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    words, code, expected = CASES[case]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        began = time.monotonic()
        done = run_charrnn("serve", *(word.replace("TAKEN", address) for word in words))
        print(f"{time.monotonic() - began:.2f} s: {done.stderr}")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), done.stderr
    assert done.stderr.startswith("error: ")
    assert expected.replace("TAKEN", address) in done.stderr

"""Authorities and certificates for tests, and a server that has some, as a user would start it."""

from __future__ import annotations

import contextlib
import datetime
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from charrnn.cli.serve import ADMIN, METRICS, READY
from tests.servers import COMMAND

trustme = pytest.importorskip("trustme")

PATIENCE_S = 60
PAST = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True)
class Pair:
    """Files of a certificate and its key."""

    cert: str
    key: str


class Authority:
    """Issues certificates into a folder."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._ca, self._folder, self._name = trustme.CA(), folder, name
        self.path = str(folder / f"{name}.pem")
        self._ca.cert_pem.write_to_path(self.path)

    def issue(self, name: str, *hosts: str, **options: Any) -> Pair:
        """A certificate for ``hosts``; this machine's addresses if there are none."""
        cert = self._ca.issue_cert(*(hosts or ("127.0.0.1", "localhost")), **options)
        pair = Pair(*(str(self._folder / f"{self._name}-{name}.{kind}.pem") for kind in ("cert", "key")))
        Path(pair.cert).write_bytes(b"".join(blob.bytes() for blob in cert.cert_chain_pems))
        cert.private_key_pem.write_to_path(pair.key)
        Path(pair.key).chmod(0o600)
        return pair


def tls_options(pair: Pair) -> tuple[str, ...]:
    """Of ``charrnn serve``."""
    return ("--tls-cert", pair.cert, "--tls-key", pair.key)


def client_options(ca: str | None = None, pair: Pair | None = None) -> tuple[str, ...]:
    """Of ``charrnn generate`` and ``charrnn bench``."""
    trusted = ("--ca", ca) if ca else ()
    return (*trusted, "--client-cert", pair.cert, "--client-key", pair.key) if pair else trusted


@dataclass
class Served:
    """A running ``charrnn serve``."""

    process: subprocess.Popen[bytes]
    log: Path
    address: str = ""
    metrics: str = ""
    admin: str = ""

    def lines(self) -> list[str]:
        """All that it has said."""
        return self.log.read_text().splitlines()

    def wait_for(self, words: str, count: int = 1) -> str:
        """The ``count``-th line with ``words``, once it is there."""
        end = time.monotonic() + PATIENCE_S
        while True:
            found = [line for line in self.lines() if words in line]
            if len(found) >= count:
                return found[count - 1]
            assert self.process.poll() is None, self.lines()
            assert time.monotonic() < end, (words, self.lines())
            time.sleep(0.01)

    def hang_up(self) -> None:
        """Have it read its files again."""
        self.process.send_signal(signal.SIGHUP)


@contextlib.contextmanager
def serving(bundle: Path, log: Path, *arguments: str) -> Iterator[Served]:
    """``charrnn serve`` on free ports, its words in ``log``; stopped by SIGTERM, exit code checked."""
    free = "127.0.0.1:0"
    listen = ["--listen", free, "--metrics", free, "--admin", free, "--drain-timeout", "0"]
    command = [*COMMAND, "serve", str(bundle), "--workers", "1", *listen, *arguments]
    with log.open("wb") as written, subprocess.Popen(command, stderr=written) as process:
        try:
            served = Served(process, log)
            served.address = served.wait_for(READY).removeprefix(READY).split(";")[0]
            served.metrics = served.wait_for(METRICS).removeprefix(METRICS)
            served.admin = served.wait_for(ADMIN).removeprefix(ADMIN)
            yield served
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()

"""The metrics of a real server, as Prometheus and its ``promtool`` read them."""

from __future__ import annotations

import itertools
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest

from charrnn import Client
from tests.scrapes import promtool, read, series, serving_metrics, types
from tests.servers import run_charrnn

NUM_CHARS = 500


@pytest.fixture(scope="module")
def server(tiny_bundle: Path) -> Iterator[tuple[str, str]]:
    with serving_metrics(tiny_bundle) as addresses:
        yield addresses


def _only_grow(page: str) -> set[str]:
    """The series that never fall: counters, and all of a histogram."""
    kinds = types(page)
    families = {name for name, kind in kinds.items() if kind == "counter"}
    for name, kind in kinds.items():
        if kind == "histogram":
            families |= {name + suffix for suffix in ("_bucket", "_sum", "_count")}
    return {name for name in series(page) if name.split("{")[0] in families}


def test_counts_only_grow_and_by_what_was_asked(server: tuple[str, str]) -> None:
    address, url = server
    pages = [read(url)]
    with Client(address) as client:
        for _ in range(3):
            client.generate("The ", max_tokens=NUM_CHARS).read()
            pages.append(read(url))
    length = 'charrnn_requests_total{model="tiny",reason="length"}'
    while (
        series(pages[-1])[length] - series(pages[0])[length] < 3
    ):  # a reader has the end before it is counted
        pages.append(read(url))
    scrapes = [series(page) for page in pages]
    for earlier, later in itertools.pairwise(scrapes):
        assert earlier.keys() == later.keys()
        assert all(later[name] >= earlier[name] for name in _only_grow(pages[0]))
    first, last = scrapes[0], scrapes[-1]
    chars = 'charrnn_chars_total{model="tiny"}'
    assert last[chars] - first[chars] == 3 * NUM_CHARS
    assert last[length] - first[length] == 3
    assert last["process_cpu_seconds_total"] > 0
    assert last["process_resident_memory_bytes"] > 2**20


def test_promtool_finds_nothing_to_complain_of(server: tuple[str, str]) -> None:
    done = promtool("check", "metrics", text=read(server[1]))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_health_is_told_and_other_paths_are_not_there(server: tuple[str, str]) -> None:
    url = server[1].removesuffix("/metrics")
    assert read(f"{url}/healthz") == "serving\n"
    with pytest.raises(urllib.error.HTTPError, match="404") as found:
        read(f"{url}/other")
    found.value.close()


def test_other_machines_read_them_only_when_told(tiny_bundle: Path) -> None:
    done = run_charrnn("serve", tiny_bundle, "--listen", "127.0.0.1:0", "--metrics", "0.0.0.0:0")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "metrics address" in done.stderr

"""``charrnn bench`` against real servers, as a user runs it."""

from __future__ import annotations

import csv
import http.server
import itertools
import json
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from charrnn.cli import main
from tests.servers import COMMAND, num_texts, run_charrnn, running_server, wait_for_texts

SHORT = ("--duration", "0.8", "--warmup", "0.2", "--max-tokens", "20..60")
LONGER = ("--duration", "1.5", "--warmup", "0.3", "--max-tokens", "20..60")
DOCS = Path(__file__).parents[2] / "docs" / "bench.md"


@pytest.fixture(scope="module")
def address(tiny_bundle: Path) -> Iterator[str]:
    with running_server(tiny_bundle) as found:
        yield found


def bench(*arguments: str | Path) -> dict[str, Any]:
    done = run_charrnn("bench", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_percentiles_are_those_of_the_requests(address: str, tmp_path: Path) -> None:
    """HdrHistogram keeps three digits, and numpy's inverted_cdf is the same definition of a quantile."""
    table = tmp_path / "requests.csv"
    report = bench(address, "--rate", "300", *SHORT, "--csv", table)["runs"][0]
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(report["outcomes"].values()) == report["request_ms"]["count"]
    for name in ("first_char_ms", "request_ms", "lag_ms"):
        times = np.array([float(row[name]) for row in rows])
        assert report[name]["mean"] == pytest.approx(times.mean(), rel=2e-3, abs=1e-3)
        for quantile in ("p50", "p90", "p99", "p999"):
            share = float(f"0.{quantile[1:]}")
            expected = np.quantile(times, share, method="inverted_cdf")
            assert report[name][quantile] == pytest.approx(expected, rel=2e-3, abs=1e-3), (name, quantile)
    assert sum(int(row["chars"]) for row in rows) == pytest.approx(report["chars"], rel=0.1)


@pytest.mark.parametrize("calls", [(), ("--multiplex",)])
def test_every_text_under_load_is_the_text_alone(address: str, calls: tuple[str, ...]) -> None:
    """The last line of defence of a server that promises the same text for the same seed under any load."""
    faults = ("--cancel-fraction", "0.2", "--slow-fraction", "0.1", "--slow-read", "5")
    check = ("--streams", "40", "--check", "--distinct", "16", *calls)
    report = bench(address, *check, *LONGER, *faults)["runs"][0]
    assert set(report["outcomes"]) == {"ok", "cancelled"}
    assert report["outcomes"]["ok"] > 40
    assert report["slow"] > 0


def test_what_a_client_gives_up_on_a_shared_call_frees_its_slot(address: str, tmp_path: Path) -> None:
    """128 slots: endless texts that went on in the first of them would leave none to the last."""
    endless = ("--max-tokens", "65536", "--deadline", "400", "--streams", "40", "--requests", "240")
    table = tmp_path / "requests.csv"
    done = run_charrnn("bench", address, "--multiplex", *endless, "--warmup", "0", "--csv", table)
    assert "no request succeeded: DEADLINE_EXCEEDED" in done.stderr
    with table.open() as file:
        chars = [int(row["chars"]) for row in csv.DictReader(file)]
    assert len(chars) == 240
    assert any(chars[-40:])


def test_the_same_plan_sends_the_same_requests(address: str, tmp_path: Path) -> None:
    tables = []
    for name in ("a.csv", "b.csv"):
        bench(address, "--rate", "100", *SHORT, "--csv", tmp_path / name)
        with (tmp_path / name).open() as file:
            tables.append([(row["request"], row["due_s"], row["chars"]) for row in csv.DictReader(file)])
    assert tables[0] == tables[1]


def test_the_server_is_seen_from_within_and_from_outside(address: str) -> None:
    report = bench(address, "--streams", "8", *SHORT)["runs"][0]
    assert 1 <= report["server"]["mean_batch"] <= 8
    assert report["server"]["total_ms"]["p50"] <= report["request_ms"]["p50"] * 1.01
    ticks = [tick for tick in report["ticks"] if tick["server_cores"] is not None]
    if Path("/proc/self/stat").exists():
        assert ticks
        assert all(tick["server_rss_bytes"] > 2**20 for tick in ticks)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where ``swept`` is shown."""
    return tmp_path_factory.mktemp("swept") / "page"


@pytest.fixture(scope="module")
def swept(address: str, page: Path) -> dict[str, Any]:
    """A sweep, as its document."""
    return bench(address, "--streams", "1..4", "--steps", "3", *SHORT, "--report", page)


def test_a_sweep_a_page_and_a_comparison(
    swept: dict[str, Any], page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [run["plan"]["load"]["closed"]["streams"] for run in swept["runs"]] == [1, 2, 4]
    shown = (page / "index.html").read_text()
    assert shown.count("data:image/png") == len(list(page.glob("*.png"))) == 4
    assert "http" not in re.sub(r"http-equiv", "", shown)
    files = [str(tmp_path / name) for name in ("a.json", "b.json")]
    for file in files:
        Path(file).write_text(json.dumps(swept))
    assert main(["bench", "compare", *files, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["ratio"] for row in rows if row["before"]} == {1.0}
    assert {row["load"] for row in rows} == {"1 streams", "2 streams", "4 streams"}


def test_the_knee_of_a_server_that_always_holds_is_the_highest_rate(address: str) -> None:
    generous = ("--slo", "request=60s")
    made = bench(address, "--find-knee", "--rate", "20..40", *SHORT, *generous)
    assert made["knee"] == 40.0
    assert len(made["runs"]) == 2


def test_a_text_cut_short_by_its_deadline_is_no_success_and_no_other_text(address: str) -> None:
    long = ("--max-tokens", "30000", "--deadline", "20..60", "--check", "--distinct", "2", "--json")
    done = run_charrnn("bench", address, "--rate", "40", "--duration", "1", "--warmup", "0", *long)
    report = json.loads(done.stdout)["runs"][0]
    assert set(report["outcomes"]) == {"DEADLINE_EXCEEDED"}
    assert (done.returncode, report["good_share"]) == (1, 0)


def test_a_schedule_too_fast_to_keep_loses_nothing(address: str) -> None:
    load = ("--rate", "200000", "--arrivals", "constant", "--duration", "0.5", "--warmup", "0")
    done = run_charrnn("bench", address, *load, "--drain", "0.2", "--json")
    report = json.loads(done.stdout)["runs"][0]
    assert sum(report["outcomes"].values()) == 100_000
    assert report["rate"] == pytest.approx(200_000)


def test_a_server_that_dies_in_a_sweep_leaves_the_runs_before(tiny_bundle: Path) -> None:
    runs = ("--rate", "20..40", "--steps", "30", "--requests", "5", "--warmup", "0", "--json")
    with running_server(tiny_bundle) as doomed:
        command = [*COMMAND, "bench", doomed, *runs]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_for_texts(doomed, 12)  # two runs are over
    out, talk = process.communicate(timeout=60)
    assert json.loads(out)["runs"][0]["outcomes"] == {"ok": 5}
    assert process.returncode in (1, 69), talk


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_the_report_so_far(
    address: str, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    shown = ("--report", str(tmp_path / "page"))
    command = [*COMMAND, "bench", address, "--streams", "4", "--duration", "600", "--warmup", "0", "--json"]
    before = num_texts(address)
    with subprocess.Popen(
        [*command, *shown], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for_texts(address, before + 100)
        process.send_signal(number)
        out, talk = process.communicate(timeout=30)
    made = json.loads(out)
    assert process.returncode == code, talk
    assert made["runs"][0]["interrupted"]
    assert made["runs"][0]["outcomes"]["ok"] > 0
    assert any("cut short after" in note for note in made["notes"])
    assert "cut short after" in (tmp_path / "page" / "index.html").read_text()


def test_a_signal_before_the_load_begins_ends_it_too(tiny_bundle: Path) -> None:
    """Where nobody speaks, and in the texts that are run alone first."""
    with running_server(tiny_bundle) as address, socket.create_server(("127.0.0.1", 0)) as silent:
        for where in (f"127.0.0.1:{silent.getsockname()[1]}", address):
            command = [*COMMAND, "bench", where, "--check", "--distinct", "100000"]
            with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
                time.sleep(1.5)
                process.send_signal(signal.SIGINT)
                _, talk = process.communicate(timeout=30)
            assert (process.returncode, talk) == (130, "")


def test_every_field_of_a_document_is_in_the_docs(swept: dict[str, Any]) -> None:
    def names(value: object) -> Iterator[str]:
        if isinstance(value, dict):
            for name, inner in value.items():
                yield name
                if name not in ("plan", "outcomes"):
                    yield from names(inner)
        elif isinstance(value, list) and value:
            yield from names(value[0])

    documented = set(re.findall(r"`([a-z0-9_]+)`", DOCS.read_text()))
    assert set(names(swept)) <= documented


def test_layers_are_ratios_of_one_another(tiny_bundle: Path) -> None:
    fast = ("--streams", "4", "--rounds", "1", "--seconds", "0.3", "--json")
    done = run_charrnn("bench", "ladder", tiny_bundle, *fast)
    assert done.returncode == 0, done.stderr
    layers = json.loads(done.stdout)["streams"]["4"]
    assert [layer["name"] for layer in layers] == [
        "step",
        "sample",
        "engine",
        "grpc rust client",
        "grpc python client",
    ]
    for before, layer in itertools.pairwise(layers):
        assert layer["ratio"] == pytest.approx(layer["chars_per_s"] / before["chars_per_s"])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nowhere"], 2, "is not host:port"),
        (["{address}", "--rate", "0"], 2, "--rate is '0'"),
        (["{address}", "--rate", "5", "--streams", "5"], 2, "not both"),
        (["{address}", "--streams", "1.5"], 2, "--streams is '1.5'"),
        (["{address}", "--slo", "fast"], 2, "first_char=100ms"),
        (["{address}", "--max-tokens", "many"], 2, "'many' is none of"),
        (["{address}", "--rate", "5..10", "--csv", "x.csv"], 2, "--csv is of a single run"),
        (["{address}", "--prompts", "absent.txt"], 3, "absent.txt"),
        (["{address}", "--client-cert", "x.pem"], 2, "--client-key"),
        (["{address}", "--ca", "absent.pem"], 3, "absent.pem"),
        (["{address}", "--model", "absent"], 2, "refuses the first request: NOT_FOUND"),
        (["{address}", "--check", "--model", "absent"], 2, "refuses the first request: NOT_FOUND"),
        (["{address}", "--prompt", "☃"], 2, "U+2603"),
        (["{http1}"], 1, "what answers at {http1} is no charrnn server: it speaks HTTP/1"),
        (["{grpc}"], 1, "what answers at {grpc} is no charrnn server: it has no charrnn.v1.CharRnn"),
        (["{address}", "--prompt", "a", "--prompts", "b"], 2, "--prompt or --prompts, not both"),
        (["{address}", "--rate", "5", "--steps", "3"], 2, "--steps is of a sweep"),
        (["{address}", "--find-knee", "--steps", "3"], 2, "--find-knee chooses its rates"),
        (["{address}", "--find-knee", "--csv", "x.csv"], 2, "--csv is of a single run"),
        (["{address}", "--find-knee", "--streams", "3"], 2, "--find-knee searches a rate"),
        (["{address}", "--slow-read", "5"], 2, "--slow-fraction"),
        (["{address}", "--server-name", "a"], 2, "--server-name is of a certificate"),
        (["{address}", "--streams", "5", "--arrivals", "constant"], 2, "--arrivals is of a --rate"),
        (["{address}", "--max-active", "5"], 2, "--max-active is of a --rate"),
        (["{address}", "--slo", "request=1s,request=2s"], 2, "request stands twice"),
        (["{address}", "--warmup", "604801"], 2, "604801.0 is not in the range 0<=x<=604800"),
        (["{address}", "--deadline", "0"], 2, "--deadline '0' is not within 1 and 1,000,000,000"),
        (["{address}", "--deadline", "lognormal:9:11"], 2, "--deadline 'lognormal:9:11' is not of a sigma"),
        (["{address}", "--top-k", "4294967296"], 2, "'--top-k': 4294967296 is not in the range"),
        (["127.0.0.1:9", "--duration", "1"], 69, "no server answers at 127.0.0.1:9"),
        (["{address}", "--csv", "/absent/a.csv"], 3, "/absent/a.csv"),
        (["{address}", "--report", "/dev/null/a"], 3, "/dev/null/a"),
        (["{address}", "--top-p", "nan"], 2, "--top-p"),
        (["{address}", "--rate", "0.01", "--duration", "0.3", "--warmup", "0.1"], 1, "no request came due"),
        (["compare", "absent.json", "absent.json"], 3, "absent.json"),
        (["engine", "absent"], 3, "absent"),
        (["engine", "absent", "--streams", "x"], 2, "--streams is 'x'"),
        (["ladder", "absent", "--streams", "1281"], 2, "numbers from 1 to 1280"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    address: str,
    strangers: dict[str, str],
    arguments: list[str],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"address": address, **strangers}
    ended = main(["bench", *(word.format(**places) for word in arguments)])
    told = capsys.readouterr().err
    assert (ended, told.count("\n")) == (code, 1), told
    assert said.format(**places) in told


class _Silent(http.server.BaseHTTPRequestHandler):
    """Answers every request with an error, and logs nothing."""

    def log_message(self, *_: object) -> None:
        pass


class _Web(http.server.ThreadingHTTPServer):
    """A thread each: the connection of the attempt before would hold up the one that asks what this is."""

    def handle_error(self, *_: object) -> None:
        """Says nothing of clients that close what is no use to them: stderr is what a test looks at."""


@pytest.fixture(scope="module")
def strangers() -> Iterator[dict[str, str]]:
    """Addresses of servers that are not charrnn's."""
    web = _Web(("127.0.0.1", 0), _Silent)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    other = grpc.server(ThreadPoolExecutor(1))
    port = other.add_insecure_port("127.0.0.1:0")
    other.start()
    yield {"http1": f"127.0.0.1:{web.server_port}", "grpc": f"127.0.0.1:{port}"}
    other.stop(None)
    web.shutdown()
    web.server_close()


def test_output_that_cannot_be_written_is_one_line(address: str) -> None:
    for words in (["bench", address, "--requests", "3", "--warmup", "0", "--json"], ["presets"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [*COMMAND, *words], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
            )
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert "No space left on device" in done.stderr


def test_an_engine_has_room_for_all_streams(tiny_bundle: Path) -> None:
    fast = ("--streams", "1200", "--workers", "1", "--rounds", "1", "--seconds", "1", "--json")
    done = run_charrnn("bench", "engine", tiny_bundle, *fast)
    assert done.returncode == 0, done.stderr


def test_settings_of_a_load_come_from_the_environment_and_a_file(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text("[bench]\nrequests = 7\nmax-tokens = 30\nwarmup = 0\n")
    monkeypatch.setenv("CHARRNN_BENCH_STREAMS", "3")
    report = bench(address, "--config", settings)["runs"][0]
    assert report["plan"]["load"] == {"closed": {"streams": 3}}
    assert (report["outcomes"], report["chars"]) == ({"ok": 7}, 210)

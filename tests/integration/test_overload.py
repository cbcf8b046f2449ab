"""More than can be done: what is admitted is whole, the rest is refused at once, and nobody is starved."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from charrnn import Client
from charrnn._pb import charrnn_pb2 as pb
from charrnn.bench.load import run_load
from charrnn.bench.plan import LoadPlan
from charrnn.errors import ServerBusyError
from tests.certificates import Served, serving
from tests.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    Connection,
    call_headers,
    frame,
    message,
)
from tests.replicas import eventually, replica
from tests.scrapes import read, series

SLOTS, QUEUE = 8, 32
LENGTH = 400
NUM_GREEDY = 1_000
GREEDY, POLITE = "greedy-0123456789abcdef", "polite-0123456789abcdef"


@contextmanager
def full(bundle: Path, folder: Path, queue: int, *options: str) -> Iterator[Served]:
    """A server that is soon full."""
    with serving(
        bundle, folder / "log", "--max-streams", str(SLOTS), "--queue", str(queue), *options
    ) as served:
        yield served


def value(served: Served, name: str, token: str | None = None) -> float:
    return series(read(served.metrics, token))[f'charrnn_{name}{{model="tiny"}}']


def rejected(served: Served, token: str | None = None) -> float:
    """Requests for which there was no room."""
    return series(read(served.metrics, token))['charrnn_rejected_total{model="tiny",cause="queue_full"}']


def load(served: Served, duration_s: float = 3.0, **how: object) -> LoadPlan:
    return LoadPlan(
        address=served.address,
        warmup_s=0.0,
        duration_s=duration_s,
        max_tokens={"uniform": [LENGTH, LENGTH]},
        check=True,
        distinct=8,
        **how,  # type: ignore[arg-type]
    )


def test_ten_times_what_can_be_done(tiny_bundle: Path, tmp_path: Path) -> None:
    """How much of the best is still done is printed; ``benches/strain.py`` measures it on an idle machine."""
    depths: list[float] = []
    is_over = threading.Event()
    with full(tiny_bundle, tmp_path, QUEUE) as served:

        def watch() -> None:
            while not is_over.is_set():
                depths.append(value(served, "queue_depth"))
                time.sleep(0.05)

        peak = run_load(load(served, streams=SLOTS))
        done = peak["outcomes"]
        assert set(done) == {"ok"}
        watching = threading.Thread(target=watch)
        watching.start()
        try:
            report = run_load(load(served, rate=10 * done["ok"] / peak["window_s"]))
        finally:
            is_over.set()
            watching.join()
        outcomes = report["outcomes"]
        assert set(outcomes) == {"ok", "RESOURCE_EXHAUSTED"}, outcomes
        # Parked texts have no slot and still count as under way, so the queue takes theirs.
        assert max(depths) <= SLOTS + QUEUE
        assert max(depths) > 0
        eventually("all are over", lambda: value(served, "active_streams") == 0)
        p99 = report["request_ms"]["p99"]
        print(f"{report['goodput'] / peak['goodput']:.2f} of the best, p99 {p99:.0f} ms; {outcomes}")


def tokens(folder: Path) -> str:
    path = folder / "tokens"
    path.touch(0o600)
    path.write_text(f"greedy:{GREEDY}\npolite:{POLITE}\n")
    return str(path)


def test_a_client_of_a_thousand_texts_leaves_turns_to_one_of_few(tiny_bundle: Path, tmp_path: Path) -> None:
    with (
        full(tiny_bundle, tmp_path, NUM_GREEDY, "--token-file", tokens(tmp_path)) as served,
        Client(served.address, token=GREEDY) as greedy,
        Client(served.address, token=POLITE) as polite,
        ExitStack() as opened,
    ):
        # They are not read: each is made, or parked, and what waits is the greedy one's.
        for i in range(NUM_GREEDY):
            opened.enter_context(greedy.generate(max_tokens=20_000, seed=i))
        alone = polite.generate(max_tokens=LENGTH, seed=1).read()
        waiting = value(served, "queue_depth", POLITE)
        print(f"{waiting:.0f} texts of the greedy client still wait")
        assert waiting > NUM_GREEDY / 2
        with ThreadPoolExecutor(4) as pool:
            texts = pool.map(lambda _: polite.generate(max_tokens=LENGTH, seed=1).read(), range(8))
            assert list(texts) == [alone] * 8


def test_a_client_that_asks_again_at_once_leaves_the_next_place_to_one_that_waits(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    """Of a queue that the greedy one keeps full."""
    with (
        full(tiny_bundle, tmp_path, QUEUE, "--token-file", tokens(tmp_path)) as served,
        Client(served.address, token=POLITE) as polite,
        ThreadPoolExecutor(1) as pool,
    ):
        peak = run_load(load(served, streams=SLOTS, token=GREEDY, duration_s=2.0))
        rate = 10 * peak["outcomes"]["ok"] / peak["window_s"]
        greedy = pool.submit(run_load, load(served, rate=rate, token=GREEDY, duration_s=8.0))
        eventually("it is refused", lambda: rejected(served, POLITE) > 0)
        num_refused = 0
        for seed in range(20):
            text = None
            while text is None:
                try:
                    text = polite.generate(max_tokens=LENGTH, seed=seed).read()
                except ServerBusyError:
                    num_refused += 1
                    time.sleep(0.1)
            assert len(text) == LENGTH
        outcomes = greedy.result()["outcomes"]
    assert set(outcomes) == {"ok", "RESOURCE_EXHAUSTED"}, outcomes
    assert num_refused <= 5, "refused again and again"


def test_who_has_all_that_one_may_have_is_refused_and_another_is_not(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    cap = ("--max-streams-per-client", "4", "--token-file", tokens(tmp_path))
    with (
        full(tiny_bundle, tmp_path, QUEUE, *cap) as served,
        Client(served.address, token=GREEDY) as greedy,
        Client(served.address, token=POLITE) as polite,
        ExitStack() as opened,
    ):
        refused = 0
        for i in range(50):
            try:
                stream = opened.enter_context(greedy.generate(max_tokens=1_000_000, seed=i))
                next(stream)
            except ServerBusyError:
                refused += 1
        assert refused == 46
        assert len(polite.generate(max_tokens=LENGTH).read()) == LENGTH


def test_a_long_prompt_for_a_full_queue_is_refused_in_the_midst_of_being_sent(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    """It is more than HTTP/2 sends before any of it is read."""
    limits = ("--max-streams", "1", "--workers", "1", "--queue", "0")
    with serving(tiny_bundle, tmp_path / "log", *limits) as served, Client(served.address) as client:
        symbol = client.models()[0].vocab.decode([0])
        with client.generate(max_tokens=1_000_000) as live:
            next(live)
            for _ in range(20):
                with pytest.raises(ServerBusyError, match="queue is full"):
                    client.generate(symbol * 65_536, max_tokens=1).read()
        eventually("there is room", lambda: value(served, "active_streams") == 0)
        assert value(served, "chars_total") > 0
        assert len(client.generate(symbol * 65_536, max_tokens=1).read()) == 1


def test_refusals_of_requests_that_come_slowly_cost_other_texts_nothing(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    """What comes after an answer is a fault to HTTP/2, which closes a connection that has 1,024."""
    limits = ("--max-streams", "1", "--workers", "1", "--queue", "0")
    asked = message(pb.GenerateRequest(stopping=pb.Stopping(max_tokens=1_000_000)).SerializeToString())
    with (
        serving(tiny_bundle, tmp_path / "log", *limits) as served,
        closing(Connection(served.address)) as connection,
    ):
        assert connection.call(1, asked)
        eventually("it runs", lambda: value(served, "active_streams") == 1)
        for first in range(3, 4_003, 800):
            streams = range(first, first + 800, 2)
            head = call_headers()
            assert connection.send(b"".join(frame(HEADERS, END_HEADERS, stream, head) for stream in streams))
            time.sleep(0.05)
            assert connection.send(b"".join(frame(DATA, END_STREAM, stream, asked) for stream in streams))
            eventually("all are refused", lambda end=streams: len(connection.of(HEADERS)) == end[-1] // 2 + 1)
        assert connection.of(GOAWAY) == []
        assert (rejected(served), value(served, "active_streams")) == (2_000, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux")
def test_threads_that_decode_give_way_to_the_one_that_answers(tiny_bundle: Path, tmp_path: Path) -> None:
    with replica(tiny_bundle, tmp_path) as server:
        niceness: dict[str, set[int]] = {}
        for stat in Path(f"/proc/{server.process.pid}/task").glob("*/stat"):
            name, _, fields = stat.read_text().partition("(")[2].rpartition(") ")
            niceness.setdefault(name, set()).add(int(fields.split()[16]))
    (decoding,) = niceness.pop("charrnn-decode-")  # the kernel keeps 15 characters
    others = set.union(*niceness.values())
    assert others == {decoding - 7}, niceness

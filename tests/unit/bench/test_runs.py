"""Sweeps, the knee, and documents of runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from charrnn.bench.document import compare, differences, make_document, notes, read_document
from charrnn.bench.layers import measure_layers
from charrnn.bench.load import Report, find_knee, knee, steps
from charrnn.bench.plan import LoadPlan
from charrnn.errors import CharrnnError, DataError

PLAN = LoadPlan(address="127.0.0.1:50051", rate=1)


def report(plan: LoadPlan, good_share: float | None = 1.0, **fields: Any) -> Report:
    """The fields that the functions under test look at."""
    empty = dict.fromkeys(("first_char_ms", "inter_char_ms", "inter_chunk_ms", "request_ms", "lag_ms"))
    given = {"plan": json.loads(plan.to_json()), "good_share": good_share, "interrupted": False}
    counts = {"chars_per_s": 100.0, "rate": 1.0, "goodput": 1.0, "outcomes": {"ok": 1}, "messages": []}
    return {**empty, **given, **counts, **fields}


def server_of(capacity: float) -> Callable[[LoadPlan], Report]:
    """Meets the SLO up to a rate, and at no rate above it."""

    def run(plan: LoadPlan) -> Report:
        assert plan.rate is not None
        return report(plan, 1.0 if plan.rate <= capacity else 0.5)

    return run


@pytest.mark.parametrize("capacity", [1.0, 3.0, 47.0, 900.0])
def test_the_knee_is_found_within_a_twentieth(capacity: float) -> None:
    reports = list(find_knee(PLAN, 1.0, 10_000.0, server_of(capacity)))
    found = knee(reports)
    assert found is not None
    assert found <= capacity <= found * 1.05
    assert len(reports) < 20


def test_a_knee_outside_the_rates_ends_the_search() -> None:
    below = list(find_knee(PLAN, 10.0, 100.0, server_of(5.0)))
    assert (knee(below), len(below)) == (None, 1)
    above = list(find_knee(PLAN, 10.0, 100.0, server_of(500.0)))
    assert knee(above) == 100.0


def test_ctrl_c_ends_the_search() -> None:
    def run(plan: LoadPlan) -> Report:
        return report(plan, interrupted=True)

    assert len(list(find_knee(PLAN, 1.0, 100.0, run))) == 1


def test_a_sweep_has_equal_ratios() -> None:
    assert steps(10, 1000, 5) == pytest.approx([10, 31.6228, 100, 316.228, 1000], rel=1e-5)
    assert steps(10, 20, 1) == [10.0]


def test_documents_are_compared_at_the_loads_they_share(tmp_path: Path) -> None:
    def document(factor: float, rates: list[float], **plan: Any) -> dict[str, Any]:
        plans = [LoadPlan(address="127.0.0.1:50051", rate=rate, **plan) for rate in rates]
        quantiles = dict.fromkeys(("p50", "p99", "p999"), 10.0 * factor)
        return make_document([report(p, chars_per_s=50 * factor, first_char_ms=quantiles) for p in plans])

    before, after = document(1.0, [1.0, 2.0]), document(2.0, [2.0, 4.0], seed=5)
    rows = list(compare(before, after))
    assert {row.load for row in rows} == {"2 requests/s"}
    assert {row.name: row.ratio for row in rows}["first character p99, ms"] == 2.0
    assert differences(before, after) == ["seed"]
    # One run each: compared whatever their loads.
    assert list(compare(document(1.0, [1.0]), document(1.0, [9.0])))


def test_what_is_no_document_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for content in ("", "[]", '{"format": "charrnn-bench/2"}'):
        path.write_text(content)
        with pytest.raises(DataError, match=r"a\.json"):
            read_document(path)
    path.write_text(json.dumps(make_document([report(PLAN)])))
    assert read_document(path)["runs"]


def test_a_reader_is_told_what_spoils_the_figures() -> None:
    late = report(PLAN, lag_ms={"p99": 50.0}, first_char_ms={"p50": 100.0}, outcomes={"dropped": 3})
    said = " ".join(notes({**late, "messages": ["INTERNAL: x"], "interrupted": True, "window_s": 1}))
    for words in ("50.0 ms late", "3 requests were not sent", "INTERNAL", "cut short"):
        assert words in said
    assert not list(notes(report(PLAN, lag_ms={"p99": 0.5})))
    assert make_document([report(PLAN, outcomes={"dropped": 3})])["notes"] == [
        "1 requests/s: 3 requests were not sent, as --max-active were under way"
    ]


def test_a_layer_that_made_nothing_has_no_ratio() -> None:
    with pytest.raises(CharrnnError, match="step: no character came in 1e-09 s; give it more --seconds"):
        measure_layers({"step": lambda seconds: (0.0, None)}, seconds=1e-9, rounds=1)
    layers = measure_layers(
        {"step": lambda seconds: (4.0, 1.0), "sample": lambda seconds: (2.0, None)}, seconds=1, rounds=3
    )
    assert [(layer.ratio, layer.cpu_us_per_char) for layer in layers] == [(None, 1.0), (0.5, None)]

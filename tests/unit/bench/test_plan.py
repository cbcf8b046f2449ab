"""How people write a load."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from charrnn.bench.plan import LoadPlan, parse_slo, parse_spread, read_prompts
from charrnn.errors import DataError, RequestError

ADDRESS = "127.0.0.1:50051"


@pytest.mark.parametrize(
    ("words", "spread"),
    [
        ("200", {"uniform": [200, 200]}),
        ("100..300", {"uniform": [100, 300]}),
        ("exp:200", {"exponential": {"mean": 200.0}}),
        ("lognormal:200:0.8", {"lognormal": {"median": 200.0, "sigma": 0.8}}),
    ],
)
def test_lengths_are_written_in_four_ways(words: str, spread: dict[str, object]) -> None:
    assert parse_spread(words) == spread


@pytest.mark.parametrize("words", ["", "many", "1..", "exp:", "exp:x", "lognormal:200", "-5", "1.5"])
def test_other_lengths_are_refused(words: str) -> None:
    with pytest.raises(RequestError, match="is none of 200, 100"):
        parse_spread(words)


@pytest.mark.parametrize("words", ["0", "5..4", "1..10000000000", "exp:nan", "exp:0", "lognormal:inf:1"])
def test_lengths_out_of_range_are_told_with_the_range(words: str) -> None:
    with pytest.raises(RequestError, match="within 1 and 1,000,000,000"):
        parse_spread(words)


def test_an_slo_is_read_in_its_units() -> None:
    assert parse_slo("first_char=0.1s, inter_char=20ms,request=500us") == {
        "first_char_ms": 100.0,
        "inter_char_ms": 20.0,
        "request_ms": 0.5,
    }
    assert parse_slo("") == {}


@pytest.mark.parametrize(
    "words", ["first_char", "first_char=100", "latency=5ms", "request=1.2.3s", "request=1s,request=2s"]
)
def test_an_slo_of_something_else_is_refused(words: str) -> None:
    with pytest.raises(RequestError, match="SLO"):
        parse_slo(words)


def test_prompts_come_from_plain_lines_or_objects(tmp_path: Path) -> None:
    plain, objects = tmp_path / "prompts.txt", tmp_path / "prompts.jsonl"
    plain.write_text("ROMEO:\n\nJULIET:\n")
    objects.write_text('{"prompt": "ROMEO:", "max_tokens": 9}\n{"prompt": "é"}\n')
    assert read_prompts(plain) == [{"text": "ROMEO:"}, {"text": "JULIET:"}]
    assert read_prompts(objects) == [
        {"text": "ROMEO:", "max_tokens": 9},
        {"text": "é", "max_tokens": None},
    ]


@pytest.mark.parametrize("line", ["[]", "{", '{"text": "a"}', '{"max_tokens": 0}', '{"max_tokens": true}'])
def test_a_prompt_that_is_none_is_told_with_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a"}\n' + line + "\n")
    with pytest.raises(DataError, match=r"prompts\.jsonl, line 2: write"):
        read_prompts(path)


def test_a_file_without_prompts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n\n")
    for name in ("empty", "absent"):
        with pytest.raises(DataError, match=name):
            read_prompts(tmp_path / name)


@pytest.mark.parametrize("load", [{}, {"rate": 1.0, "streams": 1}])
def test_a_load_is_open_or_closed(load: dict[str, float]) -> None:
    with pytest.raises(RequestError, match="not both"):
        LoadPlan(address=ADDRESS, **load)  # type: ignore[arg-type]


def test_connections_follow_the_streams() -> None:
    def connections(**load: int) -> int:
        return int(json.loads(LoadPlan(address=ADDRESS, **load).to_json())["connections"])  # type: ignore[arg-type]

    assert [connections(streams=streams) for streams in (1, 512, 513, 10_000)] == [1, 1, 2, 20]
    assert connections(rate=5) == 8

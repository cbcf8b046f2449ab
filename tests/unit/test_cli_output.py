"""What reaches stdout: the text, escaped where it would steer a terminal, or JSON lines."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrnn.cli.output import JsonLines, PlainText, escape_controls
from charrnn.cli.sampling import TextOptions, print_texts
from charrnn.stream import Chunk, Event, Finished, Started, Stream, Timing

END = Finished("length", None, 2, Timing(0.0, 0.5, 1.0, 3, 1.0))
ANSI = "\x1b[31mred\x07\x9b0m\r\n\tü"


def _stream(*texts: str, seed: int = 5) -> Stream:
    def events() -> Iterator[Event]:
        yield Started("m", seed, 0)
        offset = 0
        for text in texts:
            yield Chunk(text, offset, len(text))
            offset += len(text)
        yield END

    return Stream(events(), lambda: None)


@pytest.mark.parametrize(
    ("is_terminal", "raw", "expected"),
    [
        (True, False, "\\x1b[31mred\\x07\\x9b0m\\x0d\n\tü\n"),
        (True, True, ANSI + "\n"),
        (False, False, ANSI),
        (False, True, ANSI),
    ],
)
def test_a_terminal_gets_no_control_characters(
    is_terminal: bool,
    raw: bool,
    expected: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    PlainText(raw=raw, num_texts=1).write(_stream(ANSI), 0)
    assert capsys.readouterr().out == expected


@given(st.text())
def test_escaped_text_is_harmless_and_the_rest_is_kept(text: str) -> None:
    escaped = escape_controls(text)
    assert all(
        character.isprintable() or character in "\n\t" or ord(character) > 0x9F for character in escaped
    )
    plain = "".join(c for c in text if c in "\n\t" or 0x20 <= ord(c) < 0x7F or ord(c) > 0x9F)
    assert escape_controls(plain) == plain


def test_every_chunk_is_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    writer, calls = PlainText(raw=False, num_texts=1), list[str]()
    monkeypatch.setattr(sys.stdout, "write", calls.append)
    monkeypatch.setattr(sys.stdout, "flush", lambda: calls.append("flush"))
    writer.write(_stream("a", "b"), 0)
    assert calls == ["a", "flush", "b", "flush"]


def test_a_text_is_utf_8_in_any_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", newline="\r\n"))
    PlainText(raw=False, num_texts=1).write(_stream("é\n"), 0)
    assert raw.getvalue() == "é\n".encode()


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    JsonLines().write(_stream("a\x1b", "é"), 3)
    out = capsys.readouterr().out
    assert out.isascii()
    assert [json.loads(line) for line in out.splitlines()] == [
        {"event": "started", "index": 3, "model": "m", "seed": 5},
        {"event": "chunk", "index": 3, "text": "a\x1b", "offset": 0, "num_chars": 2},
        {"event": "chunk", "index": 3, "text": "é", "offset": 2, "num_chars": 1},
        {
            "event": "finished",
            "index": 3,
            "reason": "length",
            "matched_stop": None,
            "num_chars": 2,
            "timing": {
                "queue_s": 0.0,
                "first_char_s": 0.5,
                "total_s": 1.0,
                "num_steps": 3,
                "mean_batch": 1.0,
            },
        },
    ]


def test_json_tells_of_symbols_where_it_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    told = Chunk("a", 0, 1, (7,), (-0.5,), (((7, -0.5), (2, -1.5)),))
    JsonLines().write(Stream(iter([Started("m", 5, 0), told]), lambda: None), 0)
    assert json.loads(capsys.readouterr().out.splitlines()[1]) == {
        "event": "chunk",
        "index": 0,
        "text": "a",
        "offset": 0,
        "num_chars": 1,
        "ids": [7],
        "logprobs": [-0.5],
        "top": [[[7, -0.5], [2, -1.5]]],
    }


def test_several_texts_share_the_seed_and_differ_in_their_index(capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[dict[str, object]] = []

    def start(prompt: str, **arguments: object) -> Stream:
        asked.append({"prompt": prompt, **arguments})
        seed = arguments["seed"]
        return _stream("a", seed=2**64 - 1 if seed is None else int(str(seed)))

    options = TextOptions("p", {"seed": None, "top_k": 4}, 3, {"chunk_chars": 2}, json=False, raw=False)
    print_texts(start, options)
    shared = {"prompt": "p", "top_k": 4, "chunk_chars": 2}
    seeds = [None, 2**64 - 1, 2**64 - 1]
    assert asked == [{**shared, "seed": seed, "sample_index": i} for i, seed in enumerate(seeds)]
    out, err = capsys.readouterr()
    assert out == "a\na\na\n"
    assert err.splitlines() == [
        f"text 1 of 3: model m, seed {2**64 - 1}",
        f"text 2 of 3: model m, seed {2**64 - 1}",
        f"text 3 of 3: model m, seed {2**64 - 1}",
    ]

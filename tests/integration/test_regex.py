"""Texts under a regular expression: every one matches, or the request was refused with a reason."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from datetime import date
from itertools import islice
from pathlib import Path

import pytest

from charrnn import Client, Engine
from charrnn.errors import RequestError
from charrnn.stream import Stream
from tests.servers import run_charrnn, running_server

BRACKETS = r"(\((\((\(\))*\))*\))*"  # up to depth 3
JSON = r'\{"name": "[a-z]{1,8}", "ok": (true|false), "tags": \[("[a-z]{1,5}"(, "[a-z]{1,5}"){0,3})?\]\}'
DATE = r"(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"


def atom(rng: random.Random) -> str:
    kinds = ["a", "e", " ", "the", "[a-m]", "[^a-z]", r"\w", r"\s", ".", "[xyz]", "[0-9]", r"\.", "", "é"]
    return rng.choice(kinds)


def expression(rng: random.Random, depth: int = 3) -> str:
    """An expression that Rust and Python read alike."""
    if depth == 0:
        return atom(rng)
    part = [expression(rng, depth - 1) for _ in range(rng.randint(1, 3))]
    match rng.randrange(4):
        case 0:
            return "".join(part)
        case 1:
            return f"(?:{'|'.join(part)})"
        case 2:
            return f"(?:{part[0]}){rng.choice(['*', '+', '?', '{2}', '{1,3}', '{0,5}'])}"
    return atom(rng)


def texts(
    engine: Engine, rng: random.Random, num: int, reasons: list[str]
) -> Iterator[tuple[str, str, int, int]]:
    """Expressions with the text that each gave and its bounds; ``reasons`` are those of the refused."""
    started: list[tuple[str, Stream, int, int]] = []
    for _ in range(num):
        regex, max_tokens = expression(rng), rng.choice([1, 2, 5, 30])
        min_tokens = rng.choice([0, 0, 1, 3])
        fields = {"seed": rng.getrandbits(64), "temperature": rng.choice([0.0, 1.0, 3.0])}
        lengths = {"min_tokens": min(min_tokens, max_tokens), "max_tokens": max_tokens}
        if rng.random() < 0.2:
            fields["no_repeat_ngram_size"] = 2
        try:
            stream = engine.generate(regex=regex or "(?:)", **fields, **lengths)
            started.append((regex, stream, lengths["min_tokens"], max_tokens))
        except RequestError as refusal:
            reasons.append(str(refusal))
        if len(started) == 64:
            yield from ((regex, stream.read(), low, high) for regex, stream, low, high in started)
            started.clear()
    yield from ((regex, stream.read(), low, high) for regex, stream, low, high in started)


@pytest.fixture(scope="module")
def ascii_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of CPython's help texts, which hold digits and brackets of every kind; hardly trained."""
    folder = tmp_path_factory.mktemp("ascii")
    shape = ["--num-layers", "1", "--hidden-size", "24", "--batch-size", "8", "--bptt", "32", "--seed", "1"]
    done = run_charrnn("train", "--out", folder / "run", *shape, "--max-steps", "100", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    done = run_charrnn("export", folder / "run", "--out", folder / "ascii", "--precision", "int8")
    assert done.returncode == 0, done.stderr
    return folder / "ascii"


def test_ten_thousand_random_expressions(ascii_bundle: Path) -> None:
    num = 10_000
    num_texts, num_not_empty = 0, 0
    reasons: list[str] = []
    with Engine(ascii_bundle) as engine:
        for regex, text, low, high in texts(engine, random.Random(num), num, reasons):
            assert re.fullmatch(regex, text), (regex, text)
            assert low <= len(text) <= high, (regex, text)
            num_texts += 1
            num_not_empty += bool(text)
    assert num_texts + len(reasons) == num
    assert all(re.match("regex: no text of .* matches; change", reason) for reason in reasons)
    assert num_texts > 0.5 * num
    assert num_not_empty > 0.3 * num


def depth_of(text: str) -> int:
    depths, depth = [0], 0
    for c in text:
        depth += 1 if c == "(" else -1
        depths.append(depth)
    assert min(depths) == depth == 0
    return max(depths)


def test_dates_json_and_brackets_are_what_they_say(ascii_bundle: Path) -> None:
    """The model has never seen most of them; it cannot but write them."""
    with Engine(ascii_bundle) as engine:
        for seed in range(30):
            fields = {"seed": seed, "temperature": 1.5, "max_tokens": 100}
            date.fromisoformat(engine.generate(regex=DATE, **fields).read())
            value = json.loads(engine.generate(regex=JSON, **fields).read())
            assert list(value) == ["name", "ok", "tags"]
            text = engine.generate(regex=BRACKETS, min_tokens=12, **fields).read()
            assert 1 <= depth_of(text) <= 3
            assert 12 <= len(text) <= 100


def test_a_text_ends_where_the_model_would_leave_the_expression(ascii_bundle: Path) -> None:
    """Without the expression the same seed writes the same letters, and then something else."""
    with Engine(ascii_bundle) as engine:
        lengths = set()
        for seed in range(40):
            stream = engine.generate("the ", regex=r"[a-z]*", seed=seed, max_tokens=50)
            word = stream.read()
            free = engine.generate("the ", seed=seed, max_tokens=50).read()
            assert stream.finished is not None
            assert (stream.finished.reason, free[: len(word)]) == ("match", word)
            assert not re.match("[a-z]", free[len(word)])
            lengths.add(len(word))
    assert len(lengths) > 3


def test_the_wire_carries_it_and_names_what_is_wrong(ascii_bundle: Path) -> None:
    with running_server(ascii_bundle) as address, Client(address) as client, Engine(ascii_bundle) as engine:
        for regex in (DATE, JSON):
            stream = client.generate(regex=regex, seed=5, max_tokens=99)
            assert stream.read() == engine.generate(regex=regex, seed=5, max_tokens=99).read()
            assert stream.finished is not None
            assert stream.finished.reason == "match"
        for regex, message in [
            ("(", "unclosed group"),
            ("\u4e00", "no text of 0 to 256 of the model's symbols"),
        ]:
            with pytest.raises(RequestError, match=f"regex: {message}"):
                client.generate(regex=regex).read()
        assert len({client.generate(seed=1, sample_index=i, max_tokens=30).read() for i in range(4)}) == 4
        assert list(islice(client.generate(utf8=True, max_tokens=5), 9))


def test_a_word_boundary_is_refused_with_what_to_write(tiny_bundle: Path) -> None:
    with Engine(tiny_bundle) as engine:
        with pytest.raises(RequestError, match=r"write \(\?-u:\\b\) in place of \\b"):
            engine.generate("", regex=r"\b[a-z]+\b", max_tokens=9)
        assert engine.generate("", regex=r"(?-u:\b)[a-z]+(?-u:\b)", max_tokens=9).read()

"""``charrnn eval``: a run through torch and its bundle through the engine's kernel say the same of a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from charrnn.cli import main
from tests.servers import charrnn_here, run_charrnn


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Sentences of the model's own words."""
    path = tmp_path / "text"
    path.write_bytes(b"The lazy dog sleeps.\nWho knows? The quick brown fox jumps over the dog.\n" * 40)
    return path


def figures(*arguments: str | Path) -> dict[str, Any]:
    done = charrnn_here("eval", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_run_and_its_bundle_agree(tiny_run: Path, tiny_bundle: Path, text: Path) -> None:
    run = figures(tiny_run, "--text", text)
    bundle = figures(tiny_bundle, "--text", text, "--precision", "fp32")
    assert bundle["num_symbols"] == run["num_symbols"] + 1  # the first character too
    assert bundle["bpc"] == pytest.approx(run["bpc"], abs=5e-3)
    assert figures(tiny_bundle, "--text", text)["bpc"] == pytest.approx(run["bpc"], abs=0.05)


def test_what_cannot_be_evaluated_is_told(
    tiny_run: Path, tiny_bundle: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text.write_bytes(b"The dog\r\n")
    for arguments, message in [
        ((tiny_run, "--text", text), "U+000D at token 7 is not in the run's vocabulary"),
        ((tiny_run, "--text", text.parent / "missing"), "missing"),
        ((tiny_bundle, "--text", text.parent / "missing"), "missing cannot be read"),
        ((text.parent, "--text", text), "is it a run folder?"),
        ((tiny_run, "--text", text), "take it out of the text, or take a run whose own text has it"),
    ]:
        code, told = main(["eval", *map(str, arguments)]), capsys.readouterr().err
        assert (code in (2, 3), told.count("\n")) == (True, 1), told
        assert message in told


def test_a_part_of_the_run_with_its_ngram_column(tiny_run: Path) -> None:
    told = figures(tiny_run, "--dynamic", "--memorisation", "--threads", "1")
    assert told["text"] == "validation"
    assert told["split"]["sizes"]["validation"] == told["text_tokens"] == told["num_symbols"] + 1
    assert told["carried"]["nats"] == told["nats"] == pytest.approx(last_validation(tiny_run), abs=1e-6)
    assert [len(told["ngram"]["nats"]), told["ngram"]["smoothing"], told["no_ngram"]] == [
        8,
        "kneser-ney",
        None,
    ]
    assert told["dynamic"]["nats"] < told["nats"] + 0.1
    assert told["memorisation"]["drawn"]["num_tokens"] == 20_000
    test = figures(tiny_run, "--split", "test", "--no-ngram")
    assert (test["text"], test["ngram"], test["dynamic"]) == ("test", None, None)
    assert test["nats"] != told["nats"]


def last_validation(run: Path) -> float:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return min(line["validation_nats"] for line in lines if line["kind"] == "eval")


def test_people_read_the_split_and_its_size_beside_every_loss(
    tiny_run: Path, tiny_bundle: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run_charrnn("eval", tiny_run, "--memorisation")
    size = figures(tiny_run, "--no-ngram")["text_tokens"]
    title, *lines = done.stdout.splitlines()
    assert title.endswith(f": validation, {size:,} chars (split tail of corpus.txt)")
    for expected in (
        "state carried",
        "cold windows of 32",
        "8-gram",
        "1-1 ",
        "the model is",
        "longest run",
    ):
        assert any(expected in line for line in lines), expected
    assert main(["eval", str(tiny_run), "--text", str(text), "--no-ngram"]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith(f": {text}, {text.stat().st_size:,} chars")
    assert main(["eval", str(tiny_bundle), "--text", str(text)]) == 0
    assert "no n-gram column: a bundle holds no training text" in capsys.readouterr().out


def test_what_means_nothing_for_a_model_or_a_text_is_refused(
    tiny_run: Path, tiny_bundle: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in [
        ((tiny_bundle,), "a bundle holds no text: give --text FILE"),
        ((tiny_bundle, "--dynamic"), "--dynamic needs the training text"),
        ((tiny_bundle, "--text", text, "--memorisation"), "--memorisation needs the training text"),
        ((tiny_bundle, "--text", text, "--which", "last"), "--which is of a run"),
        ((tiny_bundle, "--split", "test"), "--split names a part of a run's own text"),
        ((tiny_run, "--text", text, "--split", "test"), "--split names a part of a run's own text"),
        ((tiny_run, "--precision", "fp32"), "--precision is of a bundle"),
    ]:
        assert main(["eval", *map(str, arguments)]) == 2
        told = capsys.readouterr().err
        assert (message in told, told.count("\n")) == (True, 1), told


@pytest.mark.parametrize(
    "words", [["export", "--out", "b"], ["compare"], ["report"], ["eval"]], ids=lambda words: words[0]
)
def test_a_bundle_in_place_of_a_run_is_told(
    tiny_bundle: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command, *options = words
    code = main([command, str(tiny_bundle), *options])
    told = capsys.readouterr().err
    assert (code, told.count("\n")) == (2 if command == "eval" else 3, 1), told
    assert "run" in told
    assert command == "eval" or f"{tiny_bundle} is a bundle" in told

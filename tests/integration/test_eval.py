"""``charrnn eval``: a run through torch and its bundle through the engine's kernel say the same of a text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.servers import run_charrnn


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Sentences of the model's own words."""
    path = tmp_path / "text"
    path.write_bytes(b"The lazy dog sleeps.\nWho knows? The quick brown fox jumps over the dog.\n" * 40)
    return path


def figures(*arguments: str | Path) -> dict[str, float]:
    done = run_charrnn("eval", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_run_and_its_bundle_agree(tiny_run: Path, tiny_bundle: Path, text: Path) -> None:
    run = figures(tiny_run, "--text", text)
    bundle = figures(tiny_bundle, "--text", text, "--precision", "fp32")
    assert bundle["num_symbols"] == run["num_symbols"] + 1  # the first character too
    assert bundle["bpc"] == pytest.approx(run["bpc"], abs=5e-3)
    assert figures(tiny_bundle, "--text", text)["bpc"] == pytest.approx(run["bpc"], abs=0.05)


def test_what_cannot_be_evaluated_is_told(tiny_run: Path, tiny_bundle: Path, text: Path) -> None:
    text.write_bytes(b"The dog\r\n")
    for arguments, message in [
        ((tiny_run, "--text", text), r"character '\r' (U+000D) at position 7"),
        ((tiny_run, "--text", text.parent / "missing"), "missing cannot be read"),
        ((tiny_bundle, "--text", text.parent / "missing"), "missing cannot be read"),
        ((text.parent, "--text", text), "is it a run folder?"),
    ]:
        done = run_charrnn("eval", *arguments)
        assert (done.returncode in (2, 3), done.stderr.count("\n")) == (True, 1), done.stderr
        assert message in done.stderr, done.stderr

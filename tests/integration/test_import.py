"""``charrnn import``: a foreign model of known score, and a made one, as bundles that serve like any other.

The known one is the shakespeare model of ml5.js (2x128 BasicLSTMCell), whose vocabulary is damaged.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from charrnn import Bundle
from tests.servers import charrnn_here, run_charrnn, running_server
from tests.unit.export import foreign_models as models

SHARED = Path(__file__).parents[3] / "shared"
ML5 = SHARED / "weights" / "ml5_shakespeare"
CORPUS = SHARED / "data" / "tinyshakespeare.txt"
needs_shared = pytest.mark.skipif(
    not (ML5.is_dir() and CORPUS.is_file()), reason=f"{ML5} or {CORPUS} is not there"
)

# Nats a character of the first and of the last 20,000 characters, as known from elsewhere.
KNOWN, TOLERANCE = {"first": 1.3203, "last": 1.3662}, 0.002
MENDED = ["--symbol", "40=U", "--symbol", "13=U+0075"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, corpus = tmp_path_factory.mktemp("texts"), CORPUS.read_bytes()
    for name, part in (("first", corpus[:20_000]), ("last", corpus[-20_000:])):
        (folder / name).write_bytes(part)
    return {name: folder / name for name in KNOWN}


@pytest.fixture(scope="module")
def imported(texts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The bundle, and what was printed of it."""
    out = tmp_path_factory.mktemp("ml5") / "shakespeare"
    scored = [word for path in texts.values() for word in ("--text", path)]
    done = charrnn_here("import", ML5, "--layout", "tf", "--out", out, *MENDED, *scored, "--json")
    assert done.returncode == 0, done.stderr
    return out, done.stdout


@needs_shared
def test_the_known_score_at_import(imported: tuple[Path, str]) -> None:
    found = {text["text"]: text["nats"] for text in json.loads(imported[1])["texts"]}
    assert found == pytest.approx(KNOWN, abs=TOLERANCE)


@needs_shared
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", KNOWN)
def test_the_known_score_of_the_bundle(
    imported: tuple[Path, str], texts: dict[str, Path], name: str, precision: str
) -> None:
    """20,000 characters are one lane: the state is carried from end to end."""
    done = charrnn_here("eval", imported[0], "--text", texts[name], "--precision", precision, "--json")
    assert json.loads(done.stdout)["nats"] == pytest.approx(KNOWN[name], abs=TOLERANCE), done.stderr


@needs_shared
def test_the_known_model_is_served(imported: tuple[Path, str]) -> None:
    bundle = Bundle.open(imported[0])
    assert (bundle.cell, bundle.num_layers, bundle.hidden_size, bundle.embedding_dim) == ("lstm", 2, 128, 128)
    request = ["--prompt", "ROMEO:", "--seed", "1", "--max-tokens", "200", "--temperature", "0.5"]
    with running_server(imported[0]) as address:
        served = run_charrnn("generate", "--server", address, *request)
    assert served.returncode == 0, served.stderr
    assert served.stdout == run_charrnn("sample", imported[0], *request).stdout
    assert {"the", "and", "to"} & set(served.stdout.split()), served.stdout
    card = (imported[0] / "README.md").read_text()
    assert "imported from `ml5_shakespeare`, layout tf" in card
    assert "| first | 1.3203 | 1.9" in card


@needs_shared
def test_the_known_damage_is_named(tmp_path: Path) -> None:
    done = charrnn_here("import", ML5, "--layout", "tf", "--out", tmp_path / "out")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
    assert r"id 13 is '\x20\x20', which is not one character; id 40 is ''" in done.stderr
    assert not (tmp_path / "out").exists()


@needs_shared
def test_a_wrong_forget_bias_shows_in_the_score(texts: dict[str, Path], tmp_path: Path) -> None:
    options = ["--forget-bias", "0", "--text", str(texts["first"]), "--precision", "fp32", "--json"]
    done = charrnn_here("import", ML5, "--layout", "tf", "--out", tmp_path / "out", *MENDED, *options)
    assert json.loads(done.stdout)["texts"][0]["nats"] > KNOWN["first"] + 0.1


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A Keras GRU of seven letters."""
    np.savez(tmp_path / "gru.npz", **models.keras("gru", 2, True))
    (tmp_path / "v.json").write_text(json.dumps(list("abcdef\n")))
    return tmp_path / "gru.npz"


def test_a_small_model_is_imported_and_samples(small: Path) -> None:
    folder = small.parent
    (folder / "a|b.txt").write_text("abcabcfed\n" * 30)
    command = ["import", small, "--layout", "keras", "--vocab", folder / "v.json", "--out", folder / "out"]
    done = charrnn_here(*command, "--text", folder / "a|b.txt", "--max-int8-bpc", "1")
    assert done.returncode == 0, done.stderr
    assert "a|b.txt: " in done.stderr
    assert "over 299 predictions" in done.stderr
    assert done.stdout == ""
    assert "| `a\\|b.txt` |" in (folder / "out" / "README.md").read_text()
    sampled = run_charrnn("sample", folder / "out", "--max-tokens", "50", "--seed", "1")
    assert len(sampled.stdout.rstrip("\n")) <= 50
    assert set(sampled.stdout) <= set("abcdef\n")
    again = charrnn_here(*command)
    assert (again.returncode, "exists already" in again.stderr) == (3, True), again.stderr


def test_usage_is_refused(small: Path) -> None:
    folder = small.parent
    (folder / "text").write_text("abcx")
    fixed = ["import", small, "--out", folder / "out", "--vocab", folder / "v.json"]
    for options, code, message in [
        (["--layout", "lua"], 3, "layout 'lua' is not one of torch, keras, char-rnn, tf"),
        (["--layout", "keras", "--symbol", "x=a"], 2, "'x=a' is not ID=CHAR"),
        (["--layout", "keras", "--symbol", "1=ab"], 2, "'1=ab' is not ID=CHAR"),
        (["--layout", "keras", "--symbol", "1=U+110000"], 2, "is not ID=CHAR"),
        (["--layout", "keras", "--text", folder / "text"], 3, "text: character 'x' (U+0078) at position 3"),
        (["--layout", "keras", "--text", folder / "none"], 3, "none cannot be read"),
        (["--layout", "tf"], 3, "choose another --layout"),
    ]:
        done = charrnn_here(*fixed, *options)
        assert done.returncode == code, done.stderr
        assert message in done.stderr, done.stderr
        assert not (folder / "out").exists()

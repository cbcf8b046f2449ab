"""Every file of a run, damaged in many ways: the run goes on to the very same weights, or is refused."""

from __future__ import annotations

import random
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from charrnn.errors import CharrnnError, CheckpointError
from charrnn.training import TrainConfig, Trainer
from charrnn.training.run_folder import RunFolder
from tests.runs import Diary, last_weights

KINDS = ("flip", "flip", "cut", "zeroed", "emptied", "gone", "doubled")
CHECKPOINTS = [f"checkpoints/step-00000{step}" for step in (11, 14, 16)]  # best, previous, last
FILES = [
    *(
        f"{folder}/{file}"
        for folder in CHECKPOINTS
        for file in ("model.safetensors", "optimizer.safetensors")
    ),
    *(f"{folder}/state.json" for folder in CHECKPOINTS),
    *("run.json", "config.json", "vocab.json", "tokens.bin", "metrics.jsonl", ".lock"),
]


@dataclass(frozen=True)
class Stopped:
    """A run that stopped on its way, and the weights it ends with when it is left alone."""

    run: Path
    corpus: Path
    config: TrainConfig
    weights: bytes


@pytest.fixture
def stopped(corpus: Path, small: TrainConfig, tmp_path: Path) -> Stopped:
    config = small.replace(max_steps=20, sample_chars=2)
    Trainer(config).fit(corpus, out=tmp_path / "whole")
    Trainer(config, callbacks=[Diary(16)]).fit(corpus, out=tmp_path / "stopped")
    return Stopped(tmp_path / "stopped", corpus, config, last_weights(tmp_path / "whole"))


def damage(path: Path, kind: str, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    at = rng.randrange(len(content))
    if kind == "gone":
        path.unlink()
    elif kind == "flip":
        content[at] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
    else:
        path.write_bytes(
            {"cut": content[:at], "zeroed": bytes(len(content)), "doubled": content * 2}.get(kind, b"")
        )


def outcome(stopped: Stopped, run: Path) -> str:
    """How a damaged run goes on: with the settings it keeps, as the command takes them."""
    try:
        Trainer(RunFolder(run).read_config()).fit(out=run, resume=True)
    except CharrnnError as error:
        return "many lines" if "\n" in str(error) else "refused"
    return "same" if last_weights(run) == stopped.weights else "other weights"


def test_no_damage_leads_to_other_weights(stopped: Stopped, tmp_path: Path) -> None:
    assert {path for path in FILES if (stopped.run / path).is_file()} == set(FILES)
    found, rng, run = {}, random.Random(1), tmp_path / "run"
    for name in FILES:
        for kind in rng.sample(KINDS, 5):
            shutil.rmtree(run, ignore_errors=True)
            shutil.copytree(stopped.run, run)
            damage(run / name, kind, rng)
            found[name, kind] = outcome(stopped, run)
    assert set(found.values()) == {"same", "refused"}, found
    # Two older checkpoints stand behind a damaged one, and the text behind tokens.bin.
    repaired = {name for name, _ in found if all(found[it] == "same" for it in found if it[0] == name)}
    assert repaired == set(FILES) - {"run.json", "config.json", "vocab.json"}


def test_a_damaged_text_whose_source_has_gone_is_refused(stopped: Stopped) -> None:
    stopped.corpus.unlink()
    damage(stopped.run / "tokens.bin", "flip", random.Random(2))
    assert outcome(stopped, stopped.run) == "refused"


@pytest.mark.parametrize("name", ["run.json", "config.json"])
def test_no_other_number_or_word_is_taken(stopped: Stopped, name: str) -> None:
    """Digits and letters before the seal, the changes that leave good JSON."""
    folder, whole = RunFolder(stopped.run), (stopped.run / name).read_text()
    read = folder.read_info if name == "run.json" else folder.read_config
    expected = read()
    for match in re.finditer(r"[0-8a-y]", whole[: whole.rindex('"sha256"')]):
        changed = whole[: match.start()] + chr(ord(match[0]) + 1) + whole[match.end() :]
        (stopped.run / name).write_text(changed)
        with pytest.raises(CheckpointError, match=f"{name} (is damaged|has format)"):
            read()
    (stopped.run / name).write_text(whole)
    assert read() == expected

"""``charrnn presets``, ``train --preset`` and ``charrnn completion``."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from charrnn.cli import COMPLETE_VARIABLE, main
from charrnn.training import presets
from charrnn.training.run_folder import RunFolder


def lines(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(arguments) == 0
    return capsys.readouterr().out.splitlines()


def test_they_are_listed_with_their_size(capsys: pytest.CaptureFixture[str]) -> None:
    listed = lines(capsys, "presets")
    assert [line.split()[0] for line in listed] == list(presets.names())
    assert "linux        lstm 3x700  10.2M  C source" in listed[1]


def test_one_is_printed_as_a_settings_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "\n".join(lines(capsys, "presets", "warpeace")) + "\n"
    assert text == presets.read("warpeace").text
    monkeypatch.chdir(tmp_path)
    Path("my.toml").write_text(text)
    Path("text.txt").write_text("well, prince, so genoa and lucca\n" * 200)
    cut = ["--hidden-size", "8", "--batch-size", "2", "--max-steps", "1", "--device", "cpu"]
    words = ["train", "text.txt", "--out", "run", "--config", "my.toml", *cut]
    assert main(words) == 0
    config = RunFolder("run").read_config()
    assert (config.sample_at, config.optimizer) == ((100, 300, 500, 700, 1200, 2000), "rmsprop")


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads("\n".join(lines(capsys, "presets", "--json")))
    assert [each["name"] for each in found] == list(presets.names())
    one = json.loads("\n".join(lines(capsys, "presets", "linux", "--json")))
    assert one in found
    assert (one["settings"]["hidden_size"], one["vocab_size"]) == (700, 96)
    assert 9.5e6 < one["num_parameters"] < 10.5e6


def test_an_unknown_one_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "slow"]) == 3
    assert capsys.readouterr().err.startswith("error: preset is 'slow': give one of latex, ")


def test_an_option_wins_over_the_preset_and_the_run_over_neither(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHARRNN_TRAIN_BPTT", "10")
    Path("text.txt").write_text("emma\nada\n" * 300)
    shape = ["--preset", "quick", "--hidden-size", "8", "--max-steps", "2", "--device", "cpu"]
    assert main(["train", "text.txt", "--out", "run", *shape]) == 0
    config = RunFolder("run").read_config()
    assert (config.hidden_size, config.bptt, config.dropout, config.max_minutes) == (8, 10, 0.4, 30.0)
    assert main(["train", "text.txt", "--out", "run", "--resume", *shape]) == 0
    capsys.readouterr()
    other = ["--preset", "latex", *shape[2:]]
    assert main(["train", "--out", "run", "--resume", *other]) == 3
    assert "in the run and" in capsys.readouterr().err
    assert main(["train", "--out", "new", "--preset", "slow"]) == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_a_script_that_it_understands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    script = "\n".join(lines(capsys, "completion", shell))
    assert f"{COMPLETE_VARIABLE}={shell}_complete" in script
    if shutil.which(shell):
        done = subprocess.run([shell, "-n"], input=script, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("charrnn tr", ["plain,train"]),
        ("charrnn train --pres", ["plain,--preset"]),
        ("charrnn train --preset q", ["plain,quick"]),
        ("charrnn train --cell l", ["plain,lstm"]),
        ("charrnn train b", ["file,b"]),
        ("charrnn completion z", ["plain,zsh"]),
    ],
)
def test_the_shell_is_answered(
    words: str, expected: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(COMPLETE_VARIABLE, "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    assert lines(capsys) == expected

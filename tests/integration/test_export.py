"""``charrnn export``: a real run in, a bundle out that the engine's own rules accept.

The command line runs inside the test's process: a new one would spend seconds on importing torch.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from charrnn.bundle import Bundle
from charrnn.cli import main
from charrnn.errors import BundleError
from charrnn.training import load_run


class Export:
    """Runs ``charrnn export`` and keeps what it wrote to stdout and stderr."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd
        self.stdout = self.stderr = ""

    def __call__(self, run: Path, out: Path, *arguments: str) -> int:
        """The exit code."""
        code = main(["export", str(run), "--out", str(out), *arguments])
        self.stdout, self.stderr = self._capfd.readouterr()
        return code


@pytest.fixture
def export(capfd: pytest.CaptureFixture[str]) -> Export:
    return Export(capfd)


@pytest.fixture
def run_copy(tiny_run: Path, tmp_path: Path) -> Path:
    """A run that a test may damage."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def test_the_bundle_is_the_run(tiny_run: Path, tiny_bundle: Path) -> None:
    run, bundle = load_run(tiny_run), Bundle.open(tiny_bundle)
    assert bundle.vocab == run.vocab
    assert (bundle.cell, bundle.num_layers, bundle.hidden_size) == ("lstm", 2, 16)
    assert bundle.training["step"] == run.step
    assert bundle.training["corpus"]["sha256"] == run.summary()["corpus"]["sha256"]
    fp32, int8 = bundle.precisions["fp32"], bundle.precisions["int8"]
    assert fp32.bpc is not None
    assert int8.bpc is not None
    # Both cut the validation part into streams, not into the same: a different start costs a few characters.
    assert fp32.bpc == pytest.approx(run.losses["validation"] / 0.6931472, abs=0.05)
    assert abs(int8.bpc - fp32.bpc) <= 0.01


def test_a_flipped_byte_is_found_by_its_hash(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "b"))
    graph = bundle / "step.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    with pytest.raises(BundleError, match=r"step\.onnx"):
        Bundle.open(bundle)


def test_figures_go_to_stderr_and_json_to_stdout(tiny_run: Path, tmp_path: Path, export: Export) -> None:
    assert export(tiny_run, tmp_path / "b", "--precision", "fp32", "--name", "shelf") == 0
    assert export.stdout == ""
    line, torch_line, last = export.stderr.splitlines()
    assert line.startswith("step.onnx ")
    assert "max logit difference" in line
    assert torch_line.startswith("torch: ")
    assert last == f"exported shelf to {tmp_path / 'b'}"
    assert Bundle.open(tmp_path / "b").name == "shelf"


def test_json_is_the_report(tiny_run: Path, tmp_path: Path, export: Export) -> None:
    assert export(tiny_run, tmp_path / "b", "--precision", "int8,fp32", "--json") == 0
    report = json.loads(export.stdout)
    assert [entry["precision"] for entry in report["precisions"]] == ["fp32", "int8"]
    assert report["digest"] == Bundle.open(tmp_path / "b").digest


def test_two_exports_are_the_same_bytes(tiny_run: Path, tmp_path: Path, export: Export) -> None:
    for shelf in ("one", "two"):
        assert export(tiny_run, tmp_path / shelf / "b") == 0
    for name in os.listdir(tmp_path / "one" / "b"):
        assert (tmp_path / "one" / "b" / name).read_bytes() == (tmp_path / "two" / "b" / name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--precision", "fp64"], 2, "'fp64' is not one of fp32, int8"),
        (["--which", "worst"], 2, "worst"),
        (["--name", "a/b"], 3, "choose another with --name"),
        (["--max-logit-difference", "nan"], 2, "--max-logit-difference"),
        (["--max-int8-bpc", "nan"], 2, "--max-int8-bpc"),
        (["--max-int8-bpc", "-1"], 2, "--max-int8-bpc"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    tiny_run: Path, tmp_path: Path, export: Export, arguments: list[str], code: int, message: str
) -> None:
    assert export(tiny_run, tmp_path / "b", *arguments) == code
    assert message in export.stderr
    assert len(export.stderr.splitlines()) == 1
    assert os.listdir(tmp_path) == []


def test_an_existing_bundle_needs_force(tiny_run: Path, tmp_path: Path, export: Export) -> None:
    assert export(tiny_run, tmp_path / "b", "--precision", "fp32") == 0
    assert export(tiny_run, tmp_path / "b") == 3
    assert "--force" in export.stderr
    assert export(tiny_run, tmp_path / "b", "--force") == 0
    assert os.listdir(tmp_path) == ["b"]
    assert set(Bundle.open(tmp_path / "b").precisions) == {"fp32", "int8"}


@pytest.mark.parametrize(
    "damage", ["absent", "weights cut short", "weights flipped", "no checkpoint", "text"]
)
def test_a_run_that_cannot_be_read_writes_nothing(
    run_copy: Path, tmp_path: Path, export: Export, damage: str
) -> None:
    for weights in run_copy.glob("checkpoints/*/model.safetensors"):
        content = bytearray(weights.read_bytes())
        if damage == "weights cut short":
            weights.write_bytes(content[:-100])
        elif damage == "weights flipped":
            content[-50] ^= 4
            weights.write_bytes(content)
        elif damage == "no checkpoint":
            weights.unlink()
    if damage == "text":
        tokens = run_copy / "tokens.bin"
        tokens.write_bytes(b"\1" + tokens.read_bytes()[1:])
    run = tmp_path / "nowhere" if damage == "absent" else run_copy
    assert export(run, tmp_path / "out" / "b") == 3
    assert len(export.stderr.splitlines()) == 1
    if damage == "text":
        assert f"{run_copy}/tokens.bin is damaged: expected sha256 " in export.stderr
    assert os.listdir(tmp_path) == ["run"]

"""``charrnn doctor``: what it finds, and what it makes of what is missing."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest

from charrnn.cli import doctor, main
from charrnn.errors import CharrnnError


def test_this_machine_is_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["problems"] == []
    assert report["versions"]["numpy"] == metadata.version("numpy")
    # The file's name ends with the version that the loaded library tells.
    assert report["onnxruntime"]["version"] in report["onnxruntime"]["path"]


def test_the_text_has_a_line_for_every_fact(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert {"python", "numpy", "torch", "processor", "features", "memory", "library", "device"} <= set(names)


def test_a_missing_library_is_a_problem(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_onnxruntime() -> Path:
        raise CharrnnError("ONNX Runtime is not installed: install it")

    monkeypatch.setattr(doctor, "find_onnxruntime", find_onnxruntime)
    assert main(["doctor"]) == 1
    assert "problem          ONNX Runtime: ONNX Runtime is not installed" in capsys.readouterr().out


def test_a_damaged_library_is_a_problem(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library = tmp_path / "libonnxruntime.so.1"
    library.write_bytes(b"not a library")
    monkeypatch.setattr(doctor, "find_onnxruntime", lambda: library)
    assert main(["doctor"]) == 1
    assert "does not load" in capsys.readouterr().out


def test_both_onnxruntimes_are_a_warning(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: "1.0")
    assert main(["doctor"]) == 0
    assert "uninstall both" in capsys.readouterr().out


def test_a_missing_train_extra_is_a_warning(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "torch" else "1.0")
    assert main(["doctor"]) == 0
    assert "need torch: install the train extra" in capsys.readouterr().out


def test_a_processor_without_proc(tmp_path: Path) -> None:
    assert doctor._first_processor(tmp_path / "cpuinfo") == {}


def test_the_first_processor_counts(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(
        "processor\t: 0\nmodel name\t: A: b\nflags\t\t: fpu avx2\n\nprocessor\t: 1\nmodel name\t: C\n"
    )
    assert doctor._first_processor(path) == {"processor": "0", "model name": "A: b", "flags": "fpu avx2"}

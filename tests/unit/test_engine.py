"""Where ONNX Runtime's library is looked for."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
from pathlib import Path

import pytest

from charrnn.engine import find_onnxruntime
from charrnn.errors import CharrnnError


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an installed wheel's libraries, empty."""
    origin = tmp_path / "__init__.py"
    spec = importlib.machinery.ModuleSpec("onnxruntime", None, origin=os.fspath(origin))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    folder = tmp_path / "capi"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    "name", ["libonnxruntime.so.1.31.1", "libonnxruntime.1.31.1.dylib", "onnxruntime.dll"]
)
def test_the_library_and_none_of_its_providers(wheel: Path, name: str) -> None:
    for other in (
        "libonnxruntime_providers_shared.so",
        "libonnxruntime_providers_shared.dylib",
        "onnxruntime_providers_cuda.dll",
    ):
        (wheel / other).touch()
    (wheel / name).touch()
    assert find_onnxruntime() == wheel / name


def test_a_wheel_without_a_library(wheel: Path) -> None:
    with pytest.raises(CharrnnError, match=f"no ONNX Runtime library in {wheel}"):
        find_onnxruntime()


def test_no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CharrnnError, match="not installed"):
        find_onnxruntime()

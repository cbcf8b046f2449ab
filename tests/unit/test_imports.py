"""Who imports whom: light imports stay light, and modules only look down the layers."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "python" / "charrnn"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "_pb" not in path.relative_to(PACKAGE).parts)
HEAVY = {"torch", "onnx", "onnxruntime", "safetensors", "matplotlib"}

# The part of the package a file is in -> the parts it may import, besides itself and errors.
MAY_IMPORT = {
    "__init__": {"aio", "bundle", "client", "engine", "sampler", "score", "server", "stream", "vocab"},
    "__main__": {"cli"},
    "cli": {
        "admin",
        "bench",
        "bundle",
        "checking",
        "client",
        "coding",
        "data",
        "engine",
        "export",
        "report",
        "sampler",
        "server",
        "stream",
        "tls",
        "training",
        "vocab",
    },
    "training": {"bundle", "data", "engine", "sampler", "stream", "vocab"},
    "export": {"bundle", "engine", "sampler", "stream", "training", "vocab"},
    "report": {"training", "vocab"},
    "bench": {"_native", "addresses", "client", "engine", "report", "sampler", "tls"},
    "addresses": set(),
    "tls": set(),
    "access": {"addresses", "tls"},
    "server": {"_native", "addresses", "bundle", "engine", "sampler"},
    "client": {
        "_pb",
        "access",
        "addresses",
        "calls",
        "channels",
        "many",
        "resuming",
        "sampler",
        "score",
        "stream",
        "texts",
        "wire",
    },
    "aio": {
        "many",
        "_pb",
        "access",
        "addresses",
        "calls",
        "channels",
        "resuming",
        "sampler",
        "score",
        "stream",
        "texts",
        "wire",
    },
    "calls": {"_pb", "access", "addresses", "sampler", "tls", "wire"},
    "many": {"_pb", "channels", "resuming", "stream", "texts"},
    "texts": {"_pb", "calls", "patience", "resuming", "stream", "wire"},
    "admin": {"_pb", "access", "addresses", "calls", "channels", "wire"},
    "checking": {"_native", "engine", "sampler"},
    "resuming": {"_pb", "channels", "patience", "stream", "wire"},
    "patience": set(),
    "wire": {"_pb", "sampler", "score", "stream", "vocab"},
    "channels": set(),
    "data": set(),
    "coding": {"_native", "engine", "sampler"},
    "engine": {"_native", "bundle", "sampler", "score", "stream", "vocab"},
    "random": {"_native"},
    "sampler": {"_native"},
    "bundle": {"_native", "vocab"},
    "score": {"stream"},
    "stream": set(),
    "vocab": {"_native"},
    "errors": set(),
}
MAY_IMPORT_HEAVY = {
    "export": HEAVY - {"matplotlib"},
    "training": HEAVY - {"matplotlib"},
    "report": {"matplotlib"},
    "bench": {"matplotlib"},
}


def _part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path: Path) -> Iterator[str]:
    """Dotted names of all that a file imports, inside functions too; relative imports are not used."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _parts_imported(path: Path) -> set[str]:
    names = (name.split(".") for name in _imports(path))
    return {name[1] for name in names if name[0] == "charrnn" and len(name) > 1}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_looks_only_down(path: Path) -> None:
    part = _part(path)
    assert _parts_imported(path) - {part, "errors"} <= MAY_IMPORT[part]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_training_export_and_reports_know_heavy_packages(path: Path) -> None:
    heavy = {name.split(".")[0] for name in _imports(path)} & HEAVY
    assert heavy <= MAY_IMPORT_HEAVY.get(_part(path), set())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_public_names_are_sorted(path: Path) -> None:
    assigned = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Assign)]
    for node in assigned:
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets):
            names = ast.literal_eval(node.value)
            assert names == sorted(names)


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("charrnn, charrnn.cli", HEAVY | {"grpc"}),
        ("charrnn.cli.serve, charrnn.server, charrnn.cli.admin", HEAVY | {"grpc"}),
        ("charrnn.cli.generate, charrnn.client", HEAVY),
        ("charrnn.cli.bench", HEAVY | {"grpc"}),
        ("charrnn.cli.sample, charrnn.engine", HEAVY | {"grpc"}),
        ("charrnn.cli.train, charrnn.cli.export", HEAVY | {"grpc"}),
        ("charrnn.cli.quickstart, charrnn.cli.doctor", HEAVY | {"grpc"}),
        ("charrnn.cli.eval, charrnn.cli.compare, charrnn.cli.report", HEAVY | {"grpc"}),
        ("charrnn.training.trainer, charrnn.export.exporter", {"matplotlib"}),
    ],
)
def test_light_imports_stay_light(modules: str, absent: set[str]) -> None:
    code = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not absent & set(done.stdout.split())


def test_the_package_offers_its_public_names() -> None:
    code = "import charrnn; [getattr(charrnn, name) for name in charrnn.__all__]; print(*charrnn.__all__)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    expected = {"Bundle", "Client", "Engine", "Sampler", "SamplingParams", "Vocab"}
    assert expected <= set(done.stdout.split())

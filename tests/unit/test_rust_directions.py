"""What the Rust crates may depend on, asked of cargo itself."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN_IN_CORE = {"pyo3", "numpy", "tokio", "tonic", "ort", "prost", "hyper"}


def dependencies(crate: str) -> set[str]:
    """Names of everything a crate depends on, directly or not, tests aside."""
    command = [
        "cargo",
        "tree",
        "--locked",
        "-p",
        crate,
        "-e",
        "normal,build",
        "--prefix",
        "none",
        "-f",
        "{p}",
    ]
    tree = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {line.split()[0] for line in tree.splitlines() if line.strip()}


def test_core_is_pure() -> None:
    found = dependencies("charrnn-core")
    assert "charrnn-core" in found
    assert not found & FORBIDDEN_IN_CORE


@pytest.mark.parametrize("crate", ["charrnn-serve", "charrnn-bench"])
def test_serving_and_its_bench_do_not_know_python(crate: str) -> None:
    assert not dependencies(crate) & {"pyo3", "numpy", "charrnn-py"}


def test_serving_does_not_know_its_bench() -> None:
    assert "charrnn-bench" not in dependencies("charrnn-serve")


@pytest.mark.parametrize("crate", ["charrnn-core", "charrnn-serve", "charrnn-bench", "charrnn-py"])
def test_a_crate_does_not_build_code_from_outside_its_folder(crate: str) -> None:
    """A build script that reads ../../proto would break the source distribution."""
    command = ["cargo", "metadata", "--locked", "--no-deps", "--format-version", "1"]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    packages = {package["name"]: package for package in json.loads(output.stdout)["packages"]}
    assert not [target for target in packages[crate]["targets"] if "custom-build" in target["kind"]]

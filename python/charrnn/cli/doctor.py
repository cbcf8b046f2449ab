"""``charrnn doctor``: what this machine and installation offer, and what is missing."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from charrnn.engine import find_onnxruntime
from charrnn.errors import CharrnnError

PACKAGES = (
    "charrnn",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "grpcio",
    "protobuf",
    "torch",
    "onnx",
    "safetensors",
)
ESSENTIAL = ("numpy", "grpcio", "protobuf")
# What the step graphs run faster with; the names are Linux's.
CPU_FEATURES = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "amx_tile",
    "amx_int8",
    "asimd",
    "asimddp",
    "i8mm",
)
GIB = 2**30


@click.command(
    epilog="""\b
    Examples:
      charrnn doctor
      charrnn doctor --json
    """
)
@click.option("--json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def doctor(context: click.Context, /, **options: bool) -> None:
    """Show versions, processor, memory and ONNX Runtime; exit code 1 if something essential is missing."""
    report = examine()
    click.echo(json.dumps(report, indent=2) if options["json"] else _as_text(report))
    if report["problems"]:
        context.exit(1)


def examine() -> dict[str, Any]:
    """All that ``doctor`` tells. ``problems`` keep charrnn from working, ``warnings`` do not."""
    versions = {name: _version(name) for name in PACKAGES}
    library = _onnxruntime()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
        "cpu": _cpu(),
        "memory_gib": _memory_gib(),
        "free_disk_gib": round(shutil.disk_usage(".").free / GIB, 1),
        "onnxruntime": library,
        "devices": _devices(),
        "problems": _problems(versions, library),
        "warnings": _warnings(versions),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> dict[str, Any]:
    info = _first_processor(Path("/proc/cpuinfo"))
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return {
        "model": info.get("model name") or platform.processor() or platform.machine(),
        "features": [name for name in CPU_FEATURES if name in flags],
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


def _first_processor(path: Path) -> dict[str, str]:
    """What Linux tells of its first processor; nothing elsewhere."""
    if not path.is_file():
        return {}
    lines = path.read_text().split("\n\n")[0].splitlines()
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _memory_gib() -> float | None:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB, 1)


class _ApiBase(ctypes.Structure):
    """``OrtApiBase`` of onnxruntime_c_api.h."""

    _fields_ = (("GetApi", ctypes.c_void_p), ("GetVersionString", ctypes.CFUNCTYPE(ctypes.c_char_p)))


def _onnxruntime() -> dict[str, str | None]:
    """Where the library lies and which version it says it is once loaded."""
    try:
        path = find_onnxruntime()
    except CharrnnError as error:
        return {"path": None, "version": None, "error": str(error)}
    try:
        get_api_base = ctypes.CDLL(str(path)).OrtGetApiBase
        get_api_base.restype = ctypes.POINTER(_ApiBase)
        version = get_api_base().contents.GetVersionString().decode()
    except (OSError, AttributeError) as error:
        return {"path": str(path), "version": None, "error": f"does not load: {error}"}
    return {"path": str(path), "version": version, "error": None}


def _devices() -> list[str]:
    """Graphics processors, as NVIDIA's tool lists them; none where it is missing or fails."""
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return listed.stdout.splitlines()


def _problems(versions: dict[str, str | None], library: dict[str, str | None]) -> list[str]:
    missing = [f"{name} is not installed" for name in ESSENTIAL if versions[name] is None]
    return missing + ([f"ONNX Runtime: {library['error']}"] if library["error"] else [])


def _warnings(versions: dict[str, str | None]) -> list[str]:
    warnings = []
    if versions["onnxruntime"] and versions["onnxruntime-gpu"]:
        warnings.append("onnxruntime and onnxruntime-gpu share a folder: uninstall both, install one again")
    missing = [name for name in ("torch", "onnx", "safetensors") if versions[name] is None]
    if missing:
        warnings.append(f"train and export need {', '.join(missing)}: install the train extra")
    return warnings


def _as_text(report: dict[str, Any]) -> str:
    cpu, library = report["cpu"], report["onnxruntime"]
    rows = [
        ("python", f"{report['python']} on {report['platform']}"),
        *((name, version or "not installed") for name, version in report["versions"].items()),
        ("processor", f"{cpu['model']}: {cpu['usable_cores']} of {cpu['cores']} cores usable"),
        ("features", " ".join(cpu["features"]) or "none of those looked for"),
        ("memory", f"{report['memory_gib']} GiB" if report["memory_gib"] else "unknown"),
        ("free disk", f"{report['free_disk_gib']} GiB here"),
        (
            "library",
            f"{library['path']} (version {library['version']})" if library["version"] else "not usable",
        ),
        *(("device", device) for device in report["devices"] or ["no NVIDIA graphics processor"]),
        *(("warning", warning) for warning in report["warnings"]),
        *(("problem", problem) for problem in report["problems"]),
    ]
    return "\n".join(f"{name:<16} {value}" for name, value in rows)

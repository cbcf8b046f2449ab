"""Export: each precision's step graph built and judged, then the whole bundle written, or nothing.

Ties the package together; arithmetic, judging and writing are in the modules beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from charrnn.errors import BundleError, ConfigError
from charrnn.export.arithmetic import PRECISIONS
from charrnn.export.card import model_card
from charrnn.export.folder import write_folder
from charrnn.export.graph import build_step_graph
from charrnn.export.judge import Judge, Tolerances
from charrnn.export.manifest import FILE_NAMES, FORMAT, MANIFEST, manifest_bytes
from charrnn.export.report import ExportReport
from charrnn.export.source import TrainedModel, read_run
from charrnn.export.weights import StepWeights

_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclass(frozen=True)
class ExportOptions:
    """``name``: of the model, by default the folder's; ``model_version``: what tells it from others of
    its name, by default the digest; ``force``: replace a bundle of the same path."""

    name: str | None = None
    model_version: str | None = None
    force: bool = False
    corpus_license: str | None = None
    tolerances: Tolerances = field(default_factory=Tolerances)


def export(
    run_path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    precisions: Sequence[str] = PRECISIONS,
    *,
    which: Literal["best", "last"] = "best",
    options: ExportOptions | None = None,
) -> ExportReport:
    """Export the ``"best"`` or ``"last"`` checkpoint of a run as a bundle folder ``out``.

    Raises:
        CheckpointError: the run is missing or damaged, or a weight is not finite.
        ParityError: a graph does not compute what the model computes, or int8 loses too much.
        ConfigError: ``out`` is taken, or a name or precision is none.
        BundleError: the folder could not be written.
    """
    options = options or ExportOptions()
    check_target(Path(out), force=options.force)  # before time is spent on reading a large run
    return export_model(read_run(run_path, which), out, precisions, options)


def export_model(
    source: TrainedModel,
    out: str | os.PathLike[str],
    precisions: Sequence[str] = PRECISIONS,
    options: ExportOptions | None = None,
) -> ExportReport:
    """Export a model at hand; see ``export``."""
    options = options or ExportOptions()
    target = Path(out)
    check_target(target, force=options.force)
    wanted, name, version = _wanted(precisions), _name(options.name, target), _version(options.model_version)
    weights = StepWeights.from_model(source.model)
    graphs = {precision: build_step_graph(weights, precision).SerializeToString() for precision in wanted}
    judge = Judge(source, options.tolerances)
    reports = tuple(judge.judge(precision, graph) for precision, graph in graphs.items())
    report = ExportReport(str(target), name, version, "", judge.torch_bpc, judge.num_tokens, reports)
    files = {FILE_NAMES[precision]: graph for precision, graph in graphs.items()}
    card = model_card(source, report, options.corpus_license, target.name)
    files["README.md"] = card.encode(errors="backslashreplace")
    manifest = manifest_bytes(source, weights, report, files)
    _write(target, {MANIFEST: manifest, **files}, replace=options.force)
    return report.with_digest(hashlib.sha256(manifest).hexdigest())


def _write(target: Path, files: Mapping[str, bytes], *, replace: bool) -> None:
    try:
        write_folder(target, files, replace=replace)
    except OSError as error:
        raise BundleError(
            f"cannot write bundle {target}: {error.strerror or error}; "
            "see that its parent folder can be written to and has room, or choose another --out"
        ) from error


def check_target(target: Path, *, force: bool) -> None:
    """Refuse a path that is taken; ``force`` lets a bundle or an empty folder be replaced, nothing else."""
    if not os.path.lexists(target):
        return
    if not force:
        raise ConfigError(f"{target} exists already; choose another --out, or replace it with --force")
    if not (target.is_dir() and (_is_bundle(target) or _is_empty(target))):
        raise ConfigError(f"{target} is not a bundle, so --force does not replace it; choose another --out")


def _is_empty(target: Path) -> bool:
    try:
        return not any(target.iterdir())
    except OSError:  # nobody can tell: not to be replaced
        return False


def _is_bundle(target: Path) -> bool:
    try:
        return bool(json.loads((target / MANIFEST).read_bytes())["format"] == FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _wanted(precisions: Sequence[str]) -> list[str]:
    """Each precision once, in the order of ``PRECISIONS``."""
    if unknown := [precision for precision in precisions if precision not in PRECISIONS]:
        raise ConfigError(f"precision {unknown[0]!r} is not one of {', '.join(PRECISIONS)}")
    if not precisions:
        raise ConfigError(f"precisions is empty; name one or more of {', '.join(PRECISIONS)}")
    return [precision for precision in PRECISIONS if precision in precisions]


def _name(given: str | None, target: Path) -> str:
    """The given name, or the folder's with every character that a name may not have replaced."""
    name = given if given is not None else re.sub(r"[^A-Za-z0-9._-]+", "-", target.resolve().name)[:128]
    if not _NAME.fullmatch(name):
        raise ConfigError(f"name {name!r} is not 1 to 128 of A-Z a-z 0-9 . _ -; choose another with --name")
    return name


def _version(given: str | None) -> str | None:
    if given is not None and not _NAME.fullmatch(given):
        raise ConfigError(f"model_version {given!r} is not 1 to 128 of A-Z a-z 0-9 . _ -")
    return given

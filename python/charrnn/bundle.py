"""An exported model folder: what it holds, once every file in it has been checked.

Knows the manifest, not the graphs: the rules of the format and the hashing live in the Rust core.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from charrnn import _native
from charrnn.vocab import Vocab


@dataclass(frozen=True, slots=True)
class Precision:
    """One step graph of a bundle.

    ``bpc``: bits per character on the validation split, if it was measured.
    ``max_abs_logit_difference``: the largest difference from the trained model's logits seen at export.
    """

    path: Path
    bpc: float | None
    max_abs_logit_difference: float | None


@dataclass(frozen=True)
class Bundle:
    """An exported model. ``digest`` is the sha256 of its manifest, ``training`` how it was made.

    ``end_token``: what ends a text, for a model of documents; to go on beyond it, ban it with ``logit_bias``.
    """

    path: Path
    name: str
    cell: str
    num_layers: int
    hidden_size: int
    embedding_dim: int
    vocab: Vocab
    end_token: int | None
    precisions: Mapping[str, Precision]
    digest: str
    training: Mapping[str, Any]

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Read a bundle and check the sha256 of every file in it.

        Raises:
            BundleError: it is missing, damaged, of another format or reaches outside its folder.
        """
        text, digest = _native.open_bundle(path)
        return cls._from_manifest(Path(path), json.loads(text), digest)

    @classmethod
    def _from_manifest(cls, path: Path, manifest: dict[str, Any], digest: str) -> Bundle:
        precisions = {name: _precision(path, entry) for name, entry in manifest["precisions"].items()}
        return cls(
            path=path,
            name=manifest["name"],
            cell=manifest["cell"],
            num_layers=manifest["num_layers"],
            hidden_size=manifest["hidden_size"],
            embedding_dim=manifest["embedding_dim"],
            vocab=Vocab.from_json(manifest["vocab"]),
            end_token=manifest.get("end_token"),
            precisions=MappingProxyType(precisions),
            digest=digest,
            training=MappingProxyType(manifest.get("training", {})),
        )


def _precision(path: Path, entry: dict[str, Any]) -> Precision:
    return Precision(path / entry["path"], entry.get("bpc"), entry.get("max_abs_logit_difference"))

"""charrnn: train, export, sample and serve character-level recurrent networks.

Importing it costs milliseconds and never imports torch: training lives in ``charrnn.training``,
export in ``charrnn.export``. The names below load their modules when they are first used.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from charrnn.aio import AsyncClient, AsyncStream
    from charrnn.bundle import Bundle
    from charrnn.client import Client
    from charrnn.engine import Engine
    from charrnn.errors import CharrnnError
    from charrnn.sampler import SampleOutput, Sampler, SamplingParams
    from charrnn.score import Score
    from charrnn.server import serve
    from charrnn.stream import Chunk, Finished, Stream
    from charrnn.vocab import Vocab

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "AsyncStream",
    "Bundle",
    "CharrnnError",
    "Chunk",
    "Client",
    "Engine",
    "Finished",
    "SampleOutput",
    "Sampler",
    "SamplingParams",
    "Score",
    "Stream",
    "Vocab",
    "__version__",
    "serve",
]

_HOMES = {
    "AsyncClient": "aio",
    "AsyncStream": "aio",
    "Bundle": "bundle",
    "CharrnnError": "errors",
    "Chunk": "stream",
    "Client": "client",
    "Engine": "engine",
    "Finished": "stream",
    "SampleOutput": "sampler",
    "Sampler": "sampler",
    "SamplingParams": "sampler",
    "Score": "score",
    "Stream": "stream",
    "Vocab": "vocab",
    "serve": "server",
}

# ONNX Runtime's wheels send telemetry unless this stands before the library is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> Any:
    if home := _HOMES.get(name):
        value = globals()[name] = getattr(import_module(f"charrnn.{home}"), name)
        return value
    raise AttributeError(f"module 'charrnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

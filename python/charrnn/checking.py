"""Whether a bundle can be served on this machine, and how much of it: a check before a server is rolled out.

Knows what is asked and how it is summed up; files, rows and steps are the Rust extension's to check.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from charrnn import _native
from charrnn.engine import find_onnxruntime
from charrnn.sampler import refusing_overflow


@dataclass(frozen=True)
class Checked:
    """What a server of one bundle holds and can do here.

    ``chars_per_s``: characters a second, steps and draws of full batches on all workers, and nothing else.
    ``model_bytes``: the graph, once for each worker; what ONNX Runtime makes of it comes on top.
    ``stream_bytes``: what a text holds in its slot: state, before and after a step, and logits.
    """

    model: str
    version: str
    precision: str
    workers: int
    slots: int
    chars_per_s: float
    state_bytes: int
    stream_bytes: int
    model_bytes: int


def check_bundle(
    bundle: str | os.PathLike[str],
    *,
    workers: int | None = None,
    max_streams: int = 64,
    device: str = "cpu",
    precision: str | None = None,
    seconds: float = 1.0,
) -> Checked:
    """Check every file of ``bundle``, and that rows of a full batch are bit for bit what they are alone.

    Then full batches are stepped for ``seconds``. The parameters are those of ``serve``.

    Raises:
        RequestError: more workers or streams than ``serve`` takes.
        BundleError: a file is missing or damaged, the graph does not load or fit, or a row depends on others.
        ConfigError: the device cannot be used.
    """
    library = find_onnxruntime()
    with refusing_overflow():
        workers = _native.num_workers(workers)
        name, version, precision, state_bytes, graph_bytes, stream_bytes = _native.check_served(
            bundle=bundle, onnxruntime=library, device=device, precision=precision, batch=max_streams
        )
        layers = _native.Layers(
            bundle=bundle,
            onnxruntime=library,
            loops=workers,
            batch=max_streams,
            device=device,
            precision=precision,
            workers=1,
            queue=0,
        )
    num_chars, took_s, _ = layers.sample(seconds)
    return Checked(
        model=name,
        version=version,
        precision=precision,
        workers=workers,
        slots=workers * max_streams,
        chars_per_s=num_chars / took_s,
        state_bytes=state_bytes,
        stream_bytes=stream_bytes,
        model_bytes=workers * graph_bytes,
    )

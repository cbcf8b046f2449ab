"""Types of the Rust extension. The pleasant faces are in vocab, bundle, sampler, engine and server."""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Started: TypeAlias = tuple[Literal["started"], int, int]
Chunk: TypeAlias = tuple[Literal["chunk"], str, int, int]
Timing: TypeAlias = tuple[int, int, int, int, float]
Finished: TypeAlias = tuple[Literal["finished"], Literal["length", "stop"], str | None, int, Timing]

class Vocab:
    def __new__(cls, symbols: list[int], unit: Literal["char", "byte"]) -> Vocab: ...
    def encode(self, text: str) -> npt.NDArray[np.uint32]: ...
    def encode_bytes(self, data: bytes) -> npt.NDArray[np.uint32]: ...
    def decode(self, token_ids: npt.NDArray[np.uint32]) -> str: ...
    @property
    def symbols(self) -> list[int]: ...
    @property
    def unit(self) -> Literal["char", "byte"]: ...
    def __len__(self) -> int: ...

class SamplingParams:
    def __new__(
        cls,
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        seed: int | None = None,
        max_tokens: int = 256,
        stop: Sequence[str] = (),
        include_stop: bool = False,
    ) -> SamplingParams: ...
    @property
    def temperature(self) -> float: ...
    @property
    def top_k(self) -> int: ...
    @property
    def top_p(self) -> float: ...
    @property
    def min_p(self) -> float: ...
    @property
    def seed(self) -> int | None: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def stop(self) -> tuple[str, ...]: ...
    @property
    def include_stop(self) -> bool: ...

class SampleOutput:
    @property
    def tokens(self) -> npt.NDArray[np.int32]: ...
    @property
    def status(self) -> npt.NDArray[np.uint8]: ...

class Sampler:
    def __new__(cls, vocab_size: int) -> Sampler: ...
    @property
    def vocab_size(self) -> int: ...
    def sample(
        self,
        logits: npt.NDArray[np.float32],
        params: SamplingParams,
        *,
        seeds: npt.NDArray[np.uint64],
        positions: npt.NDArray[np.uint64],
    ) -> SampleOutput: ...

class EventStream:
    def next(self) -> Started | Chunk | Finished | None: ...
    def close(self) -> None: ...

class Engine:
    def __new__(
        cls,
        *,
        bundle: str | PathLike[str],
        onnxruntime: str | PathLike[str],
        precision: str | None = None,
        workers: int | None = None,
        max_streams: int = 64,
        max_queue: int = 1024,
    ) -> Engine: ...
    @property
    def model(self) -> dict[str, Any]: ...
    def generate(
        self,
        *,
        prompt: str,
        params: SamplingParams,
        chunk_chars: int | None = None,
        max_chunk_delay_ms: int | None = None,
    ) -> EventStream: ...
    def close(self) -> None: ...

def open_bundle(path: str | PathLike[str]) -> tuple[str, str]: ...
def serve(
    *,
    bundles: Sequence[str | PathLike[str]],
    onnxruntime: str | PathLike[str],
    listen: str,
    workers: int | None,
    max_streams: int,
    max_queue: int,
    precision: str | None,
    drain_timeout_s: float,
    on_ready: Callable[[str], None],
) -> None: ...
def limits() -> list[tuple[str, float, float, float | None, str]]: ...
def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]: ...

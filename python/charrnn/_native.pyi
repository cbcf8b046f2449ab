"""Types of the Rust extension. The pleasant faces are in vocab, bundle, sampler, engine and server."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Started: TypeAlias = tuple[Literal["started"], int, int]
Symbols: TypeAlias = tuple[list[int], list[float], list[list[tuple[int, float]]]]
Chunk: TypeAlias = tuple[Literal["chunk"], str, int, int, Symbols | None]
Scored: TypeAlias = tuple[Literal["scored"], int, float, Symbols | None]
Timing: TypeAlias = tuple[int, int, int, int, float]
Finished: TypeAlias = tuple[
    Literal["finished"],
    Literal["length", "stop", "match", "end", "deadline", "drained", "stalled"],
    str | None,
    int,
    Timing,
]

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
        typical_p: float = 1.0,
        repetition_penalty: float = 1.0,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        penalty_window: int = 64,
        no_repeat_ngram_size: int = 0,
        logit_bias: Mapping[int, float] | None = None,
        allowed: Iterable[int] | None = None,
        regex: str | None = None,
        utf8: bool = False,
        seed: int | None = None,
        logprobs: int | None = None,
        logprobs_mode: Literal["raw", "processed"] = "raw",
        max_tokens: int = 256,
        min_tokens: int = 0,
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
    def typical_p(self) -> float: ...
    @property
    def repetition_penalty(self) -> float: ...
    @property
    def presence_penalty(self) -> float: ...
    @property
    def frequency_penalty(self) -> float: ...
    @property
    def penalty_window(self) -> int: ...
    @property
    def no_repeat_ngram_size(self) -> int: ...
    @property
    def logit_bias(self) -> dict[int, float] | None: ...
    @property
    def allowed(self) -> tuple[int, ...] | None: ...
    @property
    def regex(self) -> str | None: ...
    @property
    def utf8(self) -> bool: ...
    @property
    def seed(self) -> int | None: ...
    @property
    def logprobs(self) -> int | None: ...
    @property
    def logprobs_mode(self) -> Literal["raw", "processed"]: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def min_tokens(self) -> int: ...
    @property
    def stop(self) -> tuple[str, ...]: ...
    @property
    def include_stop(self) -> bool: ...
    def fields(self) -> dict[str, Any]: ...

class SampleOutput:
    def __new__(cls, batch_size: int, num_top: int = 0) -> SampleOutput: ...
    @property
    def tokens(self) -> npt.NDArray[np.int32]: ...
    @property
    def logprobs(self) -> npt.NDArray[np.float32]: ...
    @property
    def status(self) -> npt.NDArray[np.uint8]: ...
    @property
    def top_tokens(self) -> npt.NDArray[np.int32] | None: ...
    @property
    def top_logprobs(self) -> npt.NDArray[np.float32] | None: ...

class Sampler:
    def __new__(cls, vocab_size: int) -> Sampler: ...
    @property
    def vocab_size(self) -> int: ...
    def sample(
        self,
        logits: Any,
        params: SamplingParams | Sequence[SamplingParams],
        *,
        seeds: npt.ArrayLike,
        positions: npt.ArrayLike,
        streams: npt.ArrayLike | None = None,
        history: Sequence[Sequence[int]] | npt.ArrayLike | None = None,
        out: SampleOutput | None = None,
    ) -> SampleOutput: ...

class ArithmeticEncoder:
    def __new__(cls, vocab_size: int) -> ArithmeticEncoder: ...
    def encode(self, logits: Any, token: int) -> None: ...
    def finish(self) -> bytes: ...

class ArithmeticDecoder:
    def __new__(cls, vocab_size: int, data: bytes) -> ArithmeticDecoder: ...
    def decode(self, logits: Any) -> int: ...

class EventStream:
    def next(self) -> Started | Chunk | Finished | Scored | None: ...
    def close(self) -> None: ...

class Engine:
    def __new__(
        cls,
        *,
        bundle: str | PathLike[str],
        onnxruntime: str | PathLike[str],
        device: str = "cpu",
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
        sample_index: int = 0,
        chunk_chars: int | None = None,
        max_chunk_delay_ms: int | None = None,
        ids: bool = False,
        logprobs: bool = False,
        top_logprobs: int | None = None,
        echo_prompt: bool = False,
    ) -> EventStream: ...
    def score(
        self,
        *,
        text: str | Iterable[int],
        prompt: str,
        per_symbol: bool,
        top_logprobs: int | None = None,
    ) -> EventStream: ...
    def close(self) -> None: ...

def num_workers(asked: int | None) -> int: ...
def run_load(plan: str, look: Callable[[str | None], bool]) -> tuple[str, bool]: ...

Measured: TypeAlias = tuple[int, float, float | None]

class Layers:
    def __new__(
        cls,
        *,
        bundle: str | PathLike[str],
        onnxruntime: str | PathLike[str],
        loops: int,
        batch: int,
        queue: int,
        device: str = "cpu",
        precision: str | None = None,
        workers: int | None = None,
    ) -> Layers: ...
    def step(self, seconds: float) -> Measured: ...
    def sample(self, seconds: float) -> Measured: ...
    def engine(self, streams: int, seconds: float) -> Measured: ...

def open_bundle(path: str | PathLike[str]) -> tuple[str, str]: ...

class Reload:
    def __new__(cls) -> Reload: ...
    def trigger(self) -> None: ...

def serve(
    *,
    bundles: Sequence[str | PathLike[str]],
    onnxruntime: str | PathLike[str],
    listen: str,
    metrics: str | None,
    admin: str | None,
    resume_key_file: str | PathLike[str] | None,
    workers: int | None,
    max_streams: int,
    max_queue: int,
    prompt_cache_bytes: int,
    device: str,
    precision: str | None,
    drain_timeout_s: float,
    access: tuple[
        tuple[str | PathLike[str], str | PathLike[str]] | None,
        str | PathLike[str] | None,
        str | PathLike[str] | None,
        int | None,
    ],
    logging: tuple[str, str, bool] | None,
    reload: Reload,
    on_ready: Callable[[str, str | None, str | None], None],
) -> None: ...
def check_served(
    *,
    bundle: str | PathLike[str],
    onnxruntime: str | PathLike[str],
    device: str,
    precision: str | None,
    batch: int,
) -> tuple[str, str, str, int, int, int]: ...
def limits() -> list[tuple[str, float, float, float | None, str]]: ...
def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]: ...

Counts: TypeAlias = tuple[int, int, int, int, int]

def compress(
    *,
    source: str | PathLike[str],
    target: str | PathLike[str],
    bundle: str | PathLike[str],
    onnxruntime: str | PathLike[str],
    precision: str | None,
    workers: int | None,
    on_progress: Callable[[int], object],
) -> Counts: ...
def decompress(
    *,
    source: str | PathLike[str],
    target: str | PathLike[str],
    bundle: str | PathLike[str],
    onnxruntime: str | PathLike[str],
    workers: int | None,
    on_progress: Callable[[int], object],
) -> Counts: ...
def measure(
    *,
    source: str | PathLike[str],
    bundle: str | PathLike[str],
    onnxruntime: str | PathLike[str],
    precision: str | None,
    workers: int | None,
    on_progress: Callable[[int], object],
) -> tuple[float, Counts]: ...

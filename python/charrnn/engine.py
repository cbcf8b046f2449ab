"""Generating text in this process: the engine that the server runs, without a network.

Knows where ONNX Runtime's library lies and how to hand its texts on; all decoding is in the Rust core.
``python -m charrnn.engine`` prints the library's path.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Unpack

from charrnn import _native
from charrnn.bundle import Bundle
from charrnn.errors import CharrnnError
from charrnn.sampler import SamplingFields, SamplingParams, refusing_overflow, resolve
from charrnn.score import Score
from charrnn.stream import Chunk, Event, Finished, Started, Stream, Timing, Top

# The providers beside it are called libonnxruntime_providers_*.
LIBRARY_PATTERNS = ("libonnxruntime.so*", "libonnxruntime.*dylib", "onnxruntime.dll")
INSTALL = "install onnxruntime-gpu, or onnxruntime on a Mac or an Arm machine"


def find_onnxruntime() -> Path:
    """The ONNX Runtime library inside the installed wheel, found without importing it.

    Raises:
        CharrnnError: no such wheel is installed, or it holds no library.
    """
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        raise CharrnnError(f"ONNX Runtime is not installed: {INSTALL}")
    folder = Path(spec.origin).parent / "capi"
    libraries = [path for pattern in LIBRARY_PATTERNS for path in sorted(folder.glob(pattern))]
    if not libraries:
        raise CharrnnError(f"no ONNX Runtime library in {folder}: {INSTALL}")
    return libraries[0]


class Engine:
    """Decode workers over one bundle.

    Args:
        bundle: an exported model folder.
        device: ``"cpu"``, or ``"cuda"`` and ``"cuda:N"`` for an NVIDIA GPU, which computes fp32 only.
        precision: ``"int8"`` or ``"fp32"``; ``None`` takes int8 where the bundle and the device have it.
        workers: decode threads; ``None`` takes one for each core.
        max_streams: texts decoded at once by each worker; more of them wait.

    Raises:
        BundleError: the bundle is missing, damaged or lacks the precision.
        ConfigError: the device cannot be used.

    Example:
        >>> with Engine("shakespeare") as engine:  # doctest: +SKIP
        ...     print(engine.generate("ROMEO:", max_tokens=200, seed=1).read())
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] | Bundle,
        *,
        device: str = "cpu",
        precision: str | None = None,
        workers: int | None = None,
        max_streams: int = 64,
    ) -> None:
        path = bundle.path if isinstance(bundle, Bundle) else bundle
        self._pid = os.getpid()
        with refusing_overflow():
            self._native: _native.Engine | None = _native.Engine(
                bundle=path,
                onnxruntime=find_onnxruntime(),
                device=device,
                precision=precision,
                workers=workers,
                max_streams=max_streams,
            )

    def generate(
        self,
        prompt: str = "",
        params: SamplingParams | None = None,
        *,
        sample_index: int = 0,
        chunk_chars: int | None = None,
        max_chunk_delay_ms: int | None = None,
        ids: bool = False,
        logprobs: bool = False,
        top_logprobs: int | None = None,
        echo: bool = False,
        **sampling: Unpack[SamplingFields],
    ) -> Stream:
        """Start one text; it is made as it is read, and a little ahead.

        Args:
            prompt: what the model reads first; not part of the text.
            params: or its fields as keywords: ``temperature``, ``seed``, ``max_tokens``, ``stop``...
            sample_index: which of several samples of one prompt and seed.
            chunk_chars: characters a chunk holds before it is handed over, whatever its age; default 256.
            max_chunk_delay_ms: longest wait of a character for its chunk; absent, 10 ms and more under load.
            ids: chunks tell the token ids of their characters.
            logprobs: and how likely each was: natural logarithms, in the model's own distribution.
            top_logprobs: and so many of the most likely in its place, at most 20.
            echo: the prompt comes first, as a part of the text.

        Raises:
            RequestError: a parameter out of its limits, or a prompt with unknown characters.
            ServerBusyError: too many texts are waiting.
        """
        native = self._live()
        with refusing_overflow():
            stream = native.generate(
                prompt=prompt,
                params=resolve(params, sampling),
                sample_index=sample_index,
                chunk_chars=chunk_chars,
                max_chunk_delay_ms=max_chunk_delay_ms,
                ids=ids,
                logprobs=logprobs,
                top_logprobs=top_logprobs,
                echo_prompt=echo,
            )
        # A stream keeps its engine: dropping the last reference to one ends its texts.
        return Stream(_events(stream, native.model["name"]), partial(_cancel, stream, native))

    def score(
        self,
        text: str | Sequence[int],
        *,
        prompt: str = "",
        per_symbol: bool = False,
        top_logprobs: int | None = None,
    ) -> Score:
        """How likely a text is; the model reads it and draws nothing.

        Args:
            text: at least one character, or token ids.
            prompt: what the model reads first; not scored. Without it the first character is predicted from
                the model's start symbol.
            per_symbol: tell each symbol's id and log-probability, too.
            top_logprobs: and so many of the most likely in its place, at most 20.

        Raises:
            RequestError: an unknown character, a text that is empty or too long.
            ServerBusyError: too many texts are waiting.
        """
        native = self._live()
        with refusing_overflow():
            stream = native.score(text=text, prompt=prompt, per_symbol=per_symbol, top_logprobs=top_logprobs)
        while (event := stream.next()) is not None:
            if event[0] == "scored":
                _, num_symbols, nats, symbols = event
                return Score(native.model["name"], num_symbols, nats, *_symbols(symbols))
        raise CharrnnError("the text was not scored")

    def close(self) -> None:
        """End every text and the worker threads."""
        if self._native is not None:
            self._native.close()
            self._native = None

    def _live(self) -> _native.Engine:
        if self._native is None:
            raise CharrnnError("the engine is closed")
        if self._pid != os.getpid():
            raise CharrnnError("an engine does not survive a fork: make one in the child process")
        return self._native

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _cancel(stream: _native.EventStream, _engine: _native.Engine) -> None:
    stream.close()


def _events(native: _native.EventStream, model: str) -> Iterator[Event]:
    while (event := native.next()) is not None:
        match event:
            case ("started", seed, num_prompt_tokens):
                yield Started(model, seed, num_prompt_tokens)
            case ("chunk", text, num_chars, offset, symbols):
                yield Chunk(text, offset, num_chars, *_symbols(symbols))
            case ("finished", reason, matched_stop, num_chars, timing):
                yield Finished(reason, matched_stop, num_chars, _timing(timing))


def _symbols(
    told: _native.Symbols | None,
) -> tuple[tuple[int, ...], tuple[float, ...], tuple[Top, ...]]:
    if told is None:
        return (), (), ()
    ids, logprobs, top = told
    return tuple(ids), tuple(logprobs), tuple(map(tuple, top))


def _timing(timing: _native.Timing) -> Timing:
    queue_us, first_char_us, total_us, num_steps, mean_batch = timing
    return Timing(queue_us / 1e6, first_char_us / 1e6, total_us / 1e6, num_steps, mean_batch)


if __name__ == "__main__":
    print(find_onnxruntime())

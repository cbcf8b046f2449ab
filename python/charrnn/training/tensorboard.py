"""A run's curves and samples for TensorBoard: a callback that writes an event file.

    Trainer(config, callbacks=[TensorBoard("runs/book/tensorboard")]).fit("book.txt", out="runs/book")

The format is written here (TFRecord frames around a few protobuf messages), so that nothing needs to be
installed to write it; to look at it, install tensorboard anywhere and point it at one run or many.
Knows nothing of models or run folders.
"""

from __future__ import annotations

import itertools
import math
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from charrnn.training.callbacks import Callback, Evaluated, Stepped

if TYPE_CHECKING:
    from charrnn.training.forecast import Facts
    from charrnn.training.trainer import Trainer, TrainResult

# Steps whose mean is one point of a curve.
LOG_EVERY = 50
_DT_STRING, _SESSION_START = 7, 1


class TensorBoard(Callback):
    """Writes scalars (losses, rate, gradient norm, speed) and samples to an event file in ``folder``.

    Each process adds a file of its own; on resuming it withdraws what was told of later steps before.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._clock = Path(folder), clock
        self._file: EventFile | None = None
        self._steps: list[Stepped] = []
        self._since = 0.0

    def started(self, trainer: Trainer, facts: Facts) -> None:
        """Open the file."""
        self._file = EventFile(self._folder, facts.step + 1)
        self._steps, self._since = [], self._clock()

    def stepped(self, stepped: Stepped) -> None:
        """Remember it, and write a point of the curves from time to time."""
        self._steps.append(stepped)
        if stepped.step % LOG_EVERY == 0:
            self._write_steps()

    def evaluated(self, evaluated: Evaluated) -> None:
        """A point of the validation curve."""
        loss = evaluated.loss
        self._scalars(evaluated.step, {"nats/validation": loss.nats, "bpc/validation": loss.bpc})

    def sampled(self, step: int, text: str) -> None:
        """The sample, line by line as it is."""
        if self._file is not None:
            shown = "\n".join(f"    {line}" for line in text.split("\n"))  # markdown for: as it stands
            self._file.add(step, _text("sample", shown))

    def ended(self, result: TrainResult) -> None:
        """A last point for the steps since the one before."""
        self._write_steps()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write_steps(self) -> None:
        steps, now = self._steps, self._clock()
        if not steps:
            return
        last, seconds = steps[-1], now - self._since
        applied = [step.nats for step in steps if step.is_applied]
        nats = sum(applied) / len(applied) if applied else math.nan
        told = {"nats/train": nats, "bpc/train": nats / math.log(2), "rate/lr": last.lr}
        told["rate/gradient_norm"] = last.gradient_norm
        if seconds > 0:
            told["speed/chars_per_s"] = sum(step.num_tokens for step in steps) / seconds
        self._scalars(last.step, told)
        self._steps, self._since = [], now

    def _scalars(self, step: int, values: Mapping[str, float]) -> None:
        if self._file is not None:
            self._file.add(step, b"".join(_scalar(tag, value) for tag, value in values.items()))


class EventFile:
    """Frames of events, each flushed; what older files tell of ``first_step`` and later is withdrawn."""

    _count = itertools.count()

    def __init__(self, folder: Path, first_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        host, number = socket.gethostname(), next(self._count)
        name = f"events.out.tfevents.{time.time():.0f}.{host}.{os.getpid()}.{number}"
        self._file = open(folder / name, "xb")  # noqa: SIM115
        self._write(_event(0, _bytes(3, b"brain.Event:2")))
        self._write(_event(first_step, _bytes(7, _varint(1, _SESSION_START))))

    def add(self, step: int, values: bytes) -> None:
        """Write one event with these values of a summary."""
        self._write(_event(step, _bytes(5, values)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, event: bytes) -> None:
        size = struct.pack("<Q", len(event))
        self._file.write(b"".join((size, _masked_crc(size), event, _masked_crc(event))))
        self._file.flush()


def _event(step: int, what: bytes) -> bytes:
    """``Event`` of tensorflow's event.proto: time 1, step 2, file_version 3, summary 5, session_log 7."""
    return b"\x09" + struct.pack("<d", time.time()) + _varint(2, step) + what


def _scalar(tag: str, value: float) -> bytes:
    """``Summary.value`` of summary.proto with a tag 1 and a simple_value 2."""
    return _bytes(1, _bytes(1, tag.encode()) + b"\x15" + struct.pack("<f", value))


def _text(tag: str, text: str) -> bytes:
    """``Summary.value`` with a tensor 8 of one string, and metadata 9 for the plugin that shows texts."""
    shape = _bytes(2, _bytes(2, _varint(1, 1)))
    tensor = _varint(1, _DT_STRING) + shape + _bytes(8, text.encode(errors="replace"))
    plugin = _bytes(1, _bytes(1, b"text"))
    return _bytes(1, _bytes(1, tag.encode()) + _bytes(8, tensor) + _bytes(9, plugin))


def _varint(field: int, value: int) -> bytes:
    """A field of a protobuf message that holds a number."""
    return bytes(_base128(field << 3)) + bytes(_base128(value))


def _bytes(field: int, content: bytes) -> bytes:
    """A field that holds bytes, a text or another message."""
    return bytes(_base128(field << 3 | 2)) + bytes(_base128(len(content))) + content


def _base128(value: int) -> Iterator[int]:
    while value > 0x7F:
        yield value & 0x7F | 0x80
        value >>= 7
    yield value


def _crc_table() -> Iterator[int]:
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)  # Castagnoli's polynomial, reversed
        yield value


_TABLE = tuple(_crc_table())


def crc32c(data: bytes) -> int:
    """CRC-32C (RFC 3720, appendix B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[crc & 0xFF ^ byte]
    return crc ^ 0xFFFFFFFF


def _masked_crc(data: bytes) -> bytes:
    """As TFRecord stores it: a checksum of data that holds its own checksum would be weak."""
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

"""Event files, read back by an independent reader: frames here, messages by the protobuf library."""

from __future__ import annotations

import struct
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from charrnn.cli import main
from charrnn.errors import CallbackError
from charrnn.training import TensorBoard, TrainConfig, Trainer
from charrnn.training import tensorboard as module
from charrnn.training.tensorboard import crc32c
from tests.runs import Diary

# What is used of tensorflow's event.proto, summary.proto and tensor.proto: message, field, number, type.
FIELDS = [
    ("Event", "wall_time", 1, "double"),
    ("Event", "step", 2, "int64"),
    ("Event", "file_version", 3, "string"),
    ("Event", "summary", 5, "Summary"),
    ("Event", "session_log", 7, "SessionLog"),
    ("SessionLog", "status", 1, "int32"),
    ("Summary", "value", 1, "Value*"),
    ("Value", "tag", 1, "string"),
    ("Value", "simple_value", 2, "float"),
    ("Value", "tensor", 8, "Tensor"),
    ("Value", "metadata", 9, "Metadata"),
    ("Metadata", "plugin_data", 1, "PluginData"),
    ("PluginData", "plugin_name", 1, "string"),
    ("Tensor", "dtype", 1, "int32"),
    ("Tensor", "tensor_shape", 2, "Shape"),
    ("Tensor", "string_val", 8, "bytes*"),
    ("Shape", "dim", 2, "Dim*"),
    ("Dim", "size", 1, "int64"),
]


def event_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="event.proto", package="t", syntax="proto3")
    messages: dict[str, Any] = {}
    for message, name, number, kind in FIELDS:
        if message not in messages:
            messages[message] = file.message_type.add(name=message)
        label, kind = (3 if kind.endswith("*") else 1), kind.rstrip("*")
        field = messages[message].field.add(name=name, number=number, label=label)
        if kind[0].isupper():
            field.type, field.type_name = field.TYPE_MESSAGE, f".t.{kind}"
        else:
            field.type = getattr(field, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Event"))


def slow_crc32c(data: bytes) -> int:
    """Bit by bit, from the definition."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 * (crc & 1))
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    crc = slow_crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def read_events(folder: Path) -> list[list[Any]]:
    """The events of each file, oldest file first; every checksum is checked."""
    event_type, files = event_class(), []
    for path in sorted(folder.iterdir(), key=lambda path: int(path.name.split(".")[-1])):
        data, events = path.read_bytes(), []
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            assert struct.unpack("<I", data[8:12])[0] == masked(data[:8])
            content = data[12 : 12 + size]
            assert struct.unpack("<I", data[12 + size : 16 + size])[0] == masked(content)
            events.append(event_type.FromString(content))
            data = data[16 + size :]
        files.append(events)
    return files


def curves(events: list[Any]) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for event in events:
        for value in event.summary.value:
            if not value.HasField("tensor"):
                found[value.tag][event.step] = value.simple_value
    return dict(found)


@pytest.mark.parametrize(("data", "crc"), [(b"123456789", 0xE3069283), (b"", 0), (b"\0" * 32, 0x8A9136AA)])
def test_the_checksum_is_rfc_3720s(data: bytes, crc: int) -> None:
    assert crc32c(data) == slow_crc32c(data) == crc


def test_curves_and_samples_are_read_back(
    corpus: Path, small: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOG_EVERY", 10)
    diary, clock = Diary(), iter(range(1000))
    board = TensorBoard(tmp_path / "board", clock=lambda: float(next(clock)))
    config = small.replace(sample_at=(5,), max_steps=25)
    result = Trainer(config, callbacks=[diary, board]).fit(corpus, out=tmp_path / "run")
    (events,) = read_events(tmp_path / "board")
    assert events[0].file_version == "brain.Event:2"
    assert (events[1].step, events[1].session_log.status) == (1, 1)
    assert all(event.wall_time > 1.7e9 for event in events)
    found = curves(events)
    names = {"nats/train", "bpc/train", "rate/lr", "rate/gradient_norm", "speed/chars_per_s"}
    assert set(found) == names | {"nats/validation", "bpc/validation"}
    means = {end: sum(diary.nats[start:end]) / (end - start) for start, end in ((0, 10), (10, 20), (20, 25))}
    assert found["nats/train"] == pytest.approx(means, rel=1e-6)
    losses = {step: nats for step, _, nats, _ in diary.losses}
    assert found["nats/validation"] == pytest.approx(losses, rel=1e-6)
    assert found["bpc/validation"][25] == pytest.approx(losses[25] / 0.6931471805599453, rel=1e-6)
    tokens = 10 * config.batch_size * config.bptt
    assert found["speed/chars_per_s"][10] == pytest.approx(tokens, rel=0.1)
    texts = {
        event.step: value for event in events for value in event.summary.value if value.HasField("tensor")
    }
    assert set(texts) == {5, 25}
    last = texts[25]
    assert (last.tag, last.metadata.plugin_data.plugin_name) == ("sample", "text")
    assert (last.tensor.dtype, [dim.size for dim in last.tensor.tensor_shape.dim]) == (7, [1])
    lines = last.tensor.string_val[0].decode().split("\n")
    assert [line[:4] for line in lines] == ["    "] * len(lines)
    assert "\n".join(line[4:] for line in lines) == result.sample


def test_a_resumed_run_withdraws_what_came_later(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    folder = tmp_path / "board"
    Trainer(small, callbacks=[Diary(13), TensorBoard(folder)]).fit(corpus, out=tmp_path / "run")
    Trainer(small, callbacks=[TensorBoard(folder)]).fit(out=tmp_path / "run", resume=True)
    first, second = read_events(folder)
    assert list(curves(first)["nats/train"]) == [13]
    assert (second[1].step, second[1].session_log.status) == (14, 1)
    assert list(curves(second)["nats/train"]) == [30]


def test_no_place_for_it_ends_the_run_with_a_reason(corpus: Path, small: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    board = TensorBoard(tmp_path / "taken")
    with pytest.raises(CallbackError, match=r"callback TensorBoard.started failed with FileExistsError"):
        Trainer(small, callbacks=[board]).fit(corpus, out=tmp_path / "run")


def test_the_command_writes_them_into_the_run(corpus: Path, tmp_path: Path) -> None:
    words = ["train", str(corpus), "--out", str(tmp_path / "run"), "--device", "cpu", "--tensorboard"]
    shape = ["--hidden-size", "8", "--batch-size", "2", "--max-steps", "2", "--sample-chars", "5"]
    assert main([*words, *shape]) == 0
    (events,) = read_events(tmp_path / "run/tensorboard")
    assert set(curves(events)["nats/train"]) == {2}

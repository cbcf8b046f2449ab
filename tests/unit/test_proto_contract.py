"""Clients of the last published contract still understand this one, whatever was added since."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from charrnn._pb import charrnn_pb2 as pb
from tests.contracts import breaks

PROTO = Path(__file__).parents[2] / "proto"
PUBLISHED = PROTO / "charrnn.v1.binpb"


def current() -> FileDescriptorProto:
    return FileDescriptorProto.FromString(pb.DESCRIPTOR.serialized_pb)


def buf(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([os.environ.get("PATH", ""), str(Path.home() / "go" / "bin")])
    if (command := shutil.which("buf", path=path)) is None:
        pytest.skip("buf is not installed: go install github.com/bufbuild/buf/cmd/buf@latest")
    return subprocess.run(
        [command, *arguments], cwd=PROTO, capture_output=True, text=True, timeout=120, check=False
    )


def test_nothing_published_is_broken() -> None:
    published = {file.name: file for file in FileDescriptorSet.FromString(PUBLISHED.read_bytes()).file}
    assert breaks(published["charrnn/v1/charrnn.proto"], current()) == []


def _message(file: FileDescriptorProto, name: str) -> Any:
    return next(message for message in file.message_type if message.name == name)


def _field(file: FileDescriptorProto, message: str, number: int) -> Any:
    return next(field for field in _message(file, message).field if field.number == number)


def _drop_field(file: FileDescriptorProto) -> None:
    _message(file, "Chunk").field.remove(_field(file, "Chunk", 2))


def _take_reserved(file: FileDescriptorProto) -> None:
    _message(file, "Chunk").reserved_range.add(start=2, end=3)


def _change(message: str, index: int, **traits: Any) -> Callable[[FileDescriptorProto], None]:
    def change(file: FileDescriptorProto) -> None:
        for name, value in traits.items():
            setattr(_field(file, message, index), name, value)

    return change


def _leave_oneof(file: FileDescriptorProto) -> None:
    _field(file, "GenerateRequest", 4).ClearField("oneof_index")


def _change_method(file: FileDescriptorProto) -> None:
    file.service[0].method[0].server_streaming = False


def _drop_method(file: FileDescriptorProto) -> None:
    del file.service[0].method[0]


def _rename_value(file: FileDescriptorProto) -> None:
    file.enum_type[0].value[1].name = "FINISH_REASON_OTHER"


def _drop_value(file: FileDescriptorProto) -> None:
    del file.enum_type[0].value[1]


def _drop_message(file: FileDescriptorProto) -> None:
    file.message_type.remove(_message(file, "Timing"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_change("Chunk", 1, name="words"), "name was 'text' and is 'words'"),
        (_change("Chunk", 2, type=4), "Chunk.n = 2: type was 13"),
        (_change("Chunk", 2, number=9), "Chunk.n = 2 is gone and not reserved"),
        (_change("Stopping", 1, proto3_optional=False), "proto3_optional was True"),
        (_leave_oneof, "GenerateRequest.prompt = 4: was in oneof start and is in None"),
        (_change("Stopping", 3, label=1), "label was 3"),
        (_drop_field, "Chunk.n = 2 is gone"),
        (_change_method, "CharRnn.Generate: server_streaming was True"),
        (_drop_method, "method CharRnn.Generate is gone"),
        (_rename_value, "FinishReason.FINISH_REASON_LENGTH = 1 is called FINISH_REASON_OTHER"),
        (_drop_value, "FINISH_REASON_LENGTH = 1 is gone"),
        (_drop_message, "message Timing is gone"),
    ],
)
def test_a_break_is_found(change: Callable[[FileDescriptorProto], None], words: str) -> None:
    old, new = current(), current()
    change(new)
    assert any(words in found for found in breaks(old, new))


def test_a_reserved_number_is_not_taken_again() -> None:
    old, new = current(), current()
    _drop_field(new)
    _take_reserved(new)
    assert breaks(old, new) == []
    (found,) = breaks(new, old)
    assert found == "field Chunk.n = 2 takes a reserved number"


def test_additions_break_nothing() -> None:
    old, new = current(), current()
    _message(new, "Chunk").field.add(name="more", number=99, type=9, label=1)
    new.message_type.add(name="More")
    new.service[0].method.add(name="More", input_type=".charrnn.v1.More", output_type=".charrnn.v1.More")
    assert breaks(old, new) == []


def test_buf_has_nothing_to_say() -> None:
    done = buf("lint")
    assert done.returncode == 0, done.stdout + done.stderr


def test_buf_finds_no_break_either() -> None:
    done = buf("breaking", "--against", PUBLISHED)
    assert done.returncode == 0, done.stdout + done.stderr

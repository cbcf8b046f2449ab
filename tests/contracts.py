"""Whether one version of a wire contract still understands the other: descriptors, compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto

_FIELD_TRAITS = ("name", "type", "type_name", "label", "proto3_optional")
_METHOD_TRAITS = ("input_type", "output_type", "client_streaming", "server_streaming")


def breaks(old: FileDescriptorProto, new: FileDescriptorProto) -> list[str]:
    """What a peer that knows ``old`` no longer understands in ``new``, one sentence each."""
    return [
        *_pairs("message", old.message_type, new.message_type, _in_message),
        *_pairs("enum", old.enum_type, new.enum_type, _in_enum),
        *_pairs("service", old.service, new.service, _in_service),
    ]


def _pairs(kind: str, old: Any, new: Any, compare: Any, where: str = "") -> Iterator[str]:
    """Compares what has the same name; everything old must still be there."""
    by_name = {item.name: item for item in new}
    for item in old:
        name = f"{where}{item.name}"
        if item.name not in by_name:
            yield f"{kind} {name} is gone"
        else:
            yield from compare(name, item, by_name[item.name])


def _in_message(where: str, old: DescriptorProto, new: DescriptorProto) -> Iterator[str]:
    fields = {field.number: field for field in new.field}
    for field in old.field:
        name = f"field {where}.{field.name} = {field.number}"
        if (now := fields.get(field.number)) is None:
            if not _is_reserved(field, new):
                yield f"{name} is gone and not reserved"
            continue
        for trait in _FIELD_TRAITS:
            before, after = getattr(field, trait), getattr(now, trait)
            if before != after:
                yield f"{name}: {trait} was {before!r} and is {after!r}"
        if _oneof(field, old) != _oneof(now, new):
            yield f"{name}: was in oneof {_oneof(field, old)} and is in {_oneof(now, new)}"
    for reserved in old.reserved_range:
        for number in set(range(reserved.start, reserved.end)) & fields.keys():
            yield f"field {where}.{fields[number].name} = {number} takes a reserved number"
    yield from _pairs("message", old.nested_type, new.nested_type, _in_message, f"{where}.")
    yield from _pairs("enum", old.enum_type, new.enum_type, _in_enum, f"{where}.")


def _is_reserved(field: Any, message: Any) -> bool:
    return any(item.start <= field.number < item.end for item in message.reserved_range)


def _oneof(field: Any, message: DescriptorProto) -> str | None:
    if not field.HasField("oneof_index") or field.proto3_optional:
        return None
    return message.oneof_decl[field.oneof_index].name


def _in_enum(where: str, old: EnumDescriptorProto, new: EnumDescriptorProto) -> Iterator[str]:
    values = {value.number: value.name for value in new.value}
    for value in old.value:
        now = values.get(value.number)
        if now is None:
            # Unlike a message's, both ends of an enum's range are in it.
            if not any(item.start <= value.number <= item.end for item in new.reserved_range):
                yield f"value {where}.{value.name} = {value.number} is gone and not reserved"
        elif now != value.name:
            yield f"value {where}.{value.name} = {value.number} is called {now}"


def _in_service(where: str, old: Any, new: Any) -> Iterator[str]:
    yield from _pairs("method", old.method, new.method, _in_method, f"{where}.")


def _in_method(where: str, old: Any, new: Any) -> Iterator[str]:
    for trait in _METHOD_TRAITS:
        before, after = getattr(old, trait), getattr(new, trait)
        if before != after:
            yield f"method {where}: {trait} was {before!r} and is {after!r}"

"""JSON becomes a protobuf message, as ``jsonpb`` of Go's protobuf 1.5 makes it for etcd 3.5's gateway. The
last of a name counts; unknown names and ``null`` are ignored; wrong types are refused in Go's words.
``google.protobuf.json_format`` accepts other things (base64 for URLs, floats for integers), refuses others
(``null`` in a list, unnamed numbers of enums), and has other words."""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from proxy.gateway.go_json import (
    ELEMENTS,
    TOO_DEEP,
    Mistake,
    Number,
    Stops,
    is_text,
    kind_of,
    loads,
    whole_text,
)

Message = Any  # generated classes are made at run time
_INTEGER = re.compile(r"-?[0-9]{1,20}")
_NO_BASE64 = re.compile(rb"[^A-Za-z0-9+/\r\n]")
_LINE_ENDS = re.compile(rb"[\r\n]*")
_PACKAGE = "muster."  # of this copy's names


def fill(message: Message, value: Any) -> Stops:
    """Set the message's fields from a JSON value, with stops. Mistake: it does not fit."""
    try:
        yield from _fill(message, value, count(1))
    except RecursionError:  # since Python 3.12 its parser takes what is nested too deep for this
        raise Mistake(TOO_DEEP) from None


def _fill(message: Message, value: Any, elements: Iterator[int]) -> Stops:
    """``elements`` counts those of all lists: very many short ones may lie in each other."""
    if value is None:
        return
    if not isinstance(value, dict):
        raise _wrong_type(value, "map[string]json.RawMessage")
    for field in message.DESCRIPTOR.fields:
        found = value.get(field.json_name)
        if found is None and (found := value.get(field.name)) is None:
            continue
        if field.is_repeated:
            yield from _fill_list(message, field, found, elements)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            inner = getattr(message, field.name)
            inner.Clear()
            inner.SetInParent()
            yield from _fill(inner, found, elements)
        elif isinstance(found, list):
            setattr(message, field.name, (yield from _scalars(field, found, elements)))
        else:
            setattr(message, field.name, _scalar(field, found))


def _fill_list(message: Message, field: FieldDescriptor, value: Any, elements: Iterator[int]) -> Stops:
    if not isinstance(value, list):
        raise _wrong_type(value, "[]json.RawMessage")
    items = getattr(message, field.name)
    for one in value:
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            yield from _fill(items.add(), one, elements)
        elif isinstance(one, list):
            items.append((yield from _scalars(field, one, elements)))
        else:
            items.append(_scalar(field, one))
        if not next(elements) % ELEMENTS:
            yield


def _scalars(field: FieldDescriptor, value: list[Any], elements: Iterator[int]) -> Stops:
    """Go reads a list of small numbers as bytes, too."""
    if field.type != FieldDescriptor.TYPE_BYTES:
        return _scalar(field, value)  # refused
    found = bytearray()
    for one in value:
        found.append(_integer(_not_text(one), "uint8", 0, 255))
        if not next(elements) % ELEMENTS:
            yield
    return bytes(found)


def _scalar(field: FieldDescriptor, value: Any) -> Any:
    if field.type == FieldDescriptor.TYPE_ENUM:
        return _enum(field, value)
    return _READERS[field.type](value)


def _wrong_type(value: Any, go_type: str) -> Mistake:
    return Mistake(f"json: cannot unmarshal {kind_of(value)} into Go value of type {go_type}")


def _integer(value: Any, go_type: str, low: int, high: int) -> int:
    if is_text(value):
        value = loads(value)
    if value is None:
        return 0
    if not isinstance(value, Number):
        raise _wrong_type(value, go_type)
    number = int(value) if _INTEGER.fullmatch(value) else high + 1
    if not low <= number <= high or (value[0] == "-" and low == 0):
        raise Mistake(f"json: cannot unmarshal number {value} into Go value of type {go_type}")
    return number


def _enum(field: FieldDescriptor, value: Any) -> int:
    kind = field.enum_type
    assert kind is not None, "only fields of enums come here"
    if is_text(value):
        value = whole_text(value)
        found = kind.values_by_name.get(value)
        if found is None:
            quoted = '"\\"' + value.replace("\\", "\\\\").replace('"', '\\"') + '\\""'
            raise Mistake(f"unknown value {quoted} for enum {kind.full_name.removeprefix(_PACKAGE)}")
        return int(found.number)
    return _integer(value, "protoreflect.EnumNumber", -(1 << 31), (1 << 31) - 1)


def _bool(value: Any) -> bool:
    if value is not None and not isinstance(value, bool):
        raise _wrong_type(value, "bool")
    return bool(value)


def _string(value: Any) -> str:
    if value is None:
        return ""
    if not is_text(value):
        raise _wrong_type(value, "string")
    return whole_text(value)


def _bytes(value: Any) -> bytes:
    if value is None:
        return b""
    if not is_text(value):
        raise _wrong_type(value, "[]uint8")
    return _base64(value.encode("utf-8", "replace"))


def check_binary_header(raw: bytes) -> None:
    """Mistake: a field of metadata that ends in ``-bin`` is no base64, which may lack its padding."""
    if len(raw) % 4 == 0:
        _base64(raw)
    elif (bad := _NO_BASE64.search(raw)) is not None or len(raw) % 4 == 1:
        at = len(raw) - 1 if bad is None else bad.start()
        raise Mistake(f"illegal base64 data at input byte {at}")


def _base64(raw: bytes) -> bytes:
    joined = raw.translate(None, b"\r\n")
    try:
        if len(joined) % 4 or joined.endswith(b"==="):  # Python accepts needless padding
            raise binascii.Error
        return binascii.a2b_base64(joined, strict_mode=True)
    except binascii.Error:
        raise Mistake(f"illegal base64 data at input byte {_bad_base64(raw)}") from None


def _not_text(value: Any) -> Any:
    if is_text(value):
        raise _wrong_type(value, "uint8")
    return value


def _bad_base64(raw: bytes) -> int:
    """Where Go finds that this is no base64."""
    bad = _NO_BASE64.search(raw)
    at = len(raw) if bad is None else bad.start()
    held = (at - raw.count(b"\r", 0, at) - raw.count(b"\n", 0, at)) % 4  # characters of the group of four
    if bad is None:
        return at - held
    if raw[at] != 0x3D or held < 2:
        return at
    at = _behind_line_ends(raw, at + 1)
    if held == 2:
        if at == len(raw):
            return at
        if raw[at] != 0x3D:
            return at - 1
        at = _behind_line_ends(raw, at + 1)
    return at  # behind the padding


def _behind_line_ends(raw: bytes, at: int) -> int:
    found = _LINE_ENDS.match(raw, at)
    assert found is not None, "the expression matches nothing, too"
    return found.end()


_READERS: dict[int, Callable[[Any], Any]] = {
    FieldDescriptor.TYPE_BOOL: _bool,
    FieldDescriptor.TYPE_STRING: _string,
    FieldDescriptor.TYPE_BYTES: _bytes,
    FieldDescriptor.TYPE_INT32: partial(_integer, go_type="int32", low=-(1 << 31), high=(1 << 31) - 1),
    FieldDescriptor.TYPE_UINT32: partial(_integer, go_type="uint32", low=0, high=(1 << 32) - 1),
    FieldDescriptor.TYPE_INT64: partial(_integer, go_type="int64", low=-(1 << 63), high=(1 << 63) - 1),
    FieldDescriptor.TYPE_UINT64: partial(_integer, go_type="uint64", low=0, high=(1 << 64) - 1),
}

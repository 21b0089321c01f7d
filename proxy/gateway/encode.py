"""A protobuf message becomes JSON, as etcd 3.5's gateway writes it: the proto's names, defaults left out,
64-bit integers as strings, bytes in base64, enums by name. And the bodies of errors."""

from __future__ import annotations

import base64
import re
from http import HTTPStatus
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from cluster.gotext import json_string

Message = Any  # generated classes are made at run time

_SURROGATES = re.compile("[\ud800-\udfff]")
_LARGE = frozenset((FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64))

# grpc-gateway 1's, of etcd up to 3.5; 3.6 has 499 for CANCELLED
_HTTP_STATUS = (200, 408, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401)


def encode(message: Message) -> str:
    fields = [f'"{field.name}":{_field(field, value)}' for field, value in message.ListFields()]
    return "{" + ",".join(fields) + "}"


def text(value: str) -> str:
    """A string, as Go's encoder writes it: safe inside HTML. Surrogates stand for bytes outside UTF-8."""
    return json_string(_SURROGATES.sub("\udcff", value))


def http_status(code: int) -> int:
    return _HTTP_STATUS[code] if 0 <= code < len(_HTTP_STATUS) else 500


def error(code: int, message: str) -> str:
    """The body of an error; the text is there twice, for clients older than ``message``."""
    said = text(message)
    coded = f'"code":{code},' if code else ""
    return f'{{"error":{said},{coded}"message":{said}}}' if message else f"{{{coded.rstrip(',')}}}"


def stream_error(code: int, message: str) -> str:
    status = http_status(code)
    fields = [f'"grpc_code":{code}'] if code else []
    fields.append(f'"http_code":{status}')
    if message:
        fields.append(f'"message":{text(message)}')
    fields.append(f'"http_status":{text(HTTPStatus(status).phrase)}')
    return '{"error":{' + ",".join(fields) + "}}"


def _field(field: FieldDescriptor, value: Any) -> str:
    if field.is_repeated:
        return "[" + ",".join([_single(field, one) for one in value]) + "]"
    return _single(field, value)


def _single(field: FieldDescriptor, value: Any) -> str:
    kind = field.type
    if kind == FieldDescriptor.TYPE_BYTES:
        return f'"{base64.b64encode(value).decode()}"'
    if kind in _LARGE:
        return f'"{value}"'
    if kind == FieldDescriptor.TYPE_MESSAGE:
        return encode(value)
    if kind == FieldDescriptor.TYPE_ENUM:
        assert field.enum_type is not None, "it is a field of an enum"
        named = field.enum_type.values_by_number.get(value)
        return str(value) if named is None else f'"{named.name}"'
    if kind == FieldDescriptor.TYPE_STRING:
        return text(value)
    if kind == FieldDescriptor.TYPE_BOOL:
        return "true" if value else "false"
    return str(value)

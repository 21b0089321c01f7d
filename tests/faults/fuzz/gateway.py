"""Requests to the JSON gateway and to the HTTP endpoints: made from the schema, mutated, or odd."""

from __future__ import annotations

import base64
import json
from random import Random
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Message, Ping

from proxy.gateway.paths import TARGETS
from tests.faults.fuzz import messages

#: All but that of new members: those never come, and whoever waits for them slows all else down.
_PATHS = [path for path in TARGETS if path != "/v3/cluster/member/add"]
#: Those that do most are asked most.
_WEIGHTS = [8 if "/kv/" in path or "watch" in path or "lease/" in path else 1 for path in _PATHS]
_ODD: list[Any] = [
    None,
    True,
    "",
    "x",
    "Zm9v",
    "!",
    "é\ud800",
    0,
    -1,
    1.5,
    1e300,
    1 << 70,
    "5",
    "-0",
    [],
    [[]],
    {},
    {"": 1},
    [300],
    [None],
    "A" * 3000,
    "NaN",
    "9" * 400,
]
_ODD_HEADERS = (
    "Grpc-Timeout: 1n",
    "Grpc-Timeout: x",
    "Grpc-Timeout: 99999999999999999999S",
    "Grpc-Metadata-Token: x",
    "Grpc-Metadata-Hasleader: true",
    "Authorization: Bearer x",
    "Authorization:",
    "Cookie: token=x; a",
    "X-HTTP-Method-Override: GET",
    "Content-Type: application/x-www-form-urlencoded",
    "Origin: http://x",
    "Grpc-Metadata-Traceparent: 00-x",
    "Expect: 100-continue",
    "Connection: close",
)
_ENDPOINTS = (
    "/version",
    "/health",
    "/livez",
    "/readyz",
    "/metrics",
    "/debug/vars",
    "/v3/",
    "/v3",
    "/v3beta/kv/range",
    "/v2/keys/a",
    "/livez/x",
    "/health/",
    "//health",
    "/v3/../health",
    "/%2e%2e/",
    "/v3/kv/range%00",
    "/muster/placement",
    "/",
)
_QUERIES = (
    "",
    "?",
    "?verbose",
    "?serializable=true",
    "?exclude=NOSPACE&exclude=x",
    "?%zz=%",
    "?a=" + "b" * 900,
)


def request(r: Random) -> bytes:
    """What one connection brings."""
    kind = r.random()
    if kind < 0.2:
        return _talk(r)
    data = b"".join(_endpoint(r) if r.random() < 0.2 else _call(r) for _ in range(r.randint(1, 4)))
    return messages.mutated(r, data) if kind < 0.4 else data


def _call(r: Random) -> bytes:
    path = r.choices(_PATHS, _WEIGHTS)[0]
    body = _body(r, path)
    method = r.choices(("POST", "GET", "PUT", "HEAD"), (30, 1, 1, 1))[0]
    return _http(r, method, path, body)


def _endpoint(r: Random) -> bytes:
    method = r.choice(("GET", "GET", "HEAD", "POST", "OPTIONS", "DELETE"))
    return _http(r, method, r.choice(_ENDPOINTS) + r.choice(_QUERIES), b"")


def _http(r: Random, method: str, path: str, body: bytes) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {r.choice(('x', '127.0.0.1:1', '', '[::1]'))}"]
    lines += [r.choice(_ODD_HEADERS) for _ in range(r.choice((0, 0, 1, 2)))]
    if r.random() < 0.9:
        lines.append(f"Content-Length: {len(body)}")
    else:
        lines.append("Transfer-Encoding: chunked")
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "replace") + body


def _talk(r: Random) -> bytes:
    """A WebSocket, and what is said by it."""
    path = r.choice(("/v3/watch", "/v3/lease/keepalive", r.choice(_PATHS), "/v3/nosuch"))
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: x",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    if r.random() < 0.2:
        lines[r.randrange(2, len(lines))] = r.choice(_ODD_HEADERS)
    if r.random() < 0.2:
        lines.append(
            r.choice(
                ("Sec-WebSocket-Protocol: Bearer, x", "Sec-WebSocket-Protocol: Bearer", "Cookie: token=")
            )
        )
    client, frames = Connection(ConnectionType.CLIENT), b""
    for _ in range(r.randint(0, 6)):
        body: Any = _body(r, path if path in TARGETS else "/v3/watch")
        frames += client.send(Message(data=body, message_finished=True))
        if r.random() < 0.2:
            frames += client.send(Ping(payload=b"?"))
    if r.random() < 0.3:
        frames += client.send(CloseConnection(code=r.choice((1000, 1001, 3000))))
    return "\r\n".join([*lines, "", ""]).encode() + (
        messages.mutated(r, frames) if r.random() < 0.4 else frames
    )


def _body(r: Random, path: str) -> bytes:
    what = r.random()
    if what < 0.06:
        return r.choice(
            (b"", b"{", b"nul", b"[" * 5000, b'{"a":' * 3000, b"{}{}", b"\xff", b"{}x", b'"' + b"\\u12" * 9)
        )
    made = _message(r, TARGETS[path].request.DESCRIPTOR, 0)  # type: ignore[attr-defined]
    body = json.dumps(made).encode("utf-8", "replace")
    if what < 0.15:
        body *= 3
    return messages.mutated(r, body) if what > 0.85 else body


def _message(r: Random, kind: Descriptor, depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in kind.fields:
        if r.random() < (0.5 if depth else 0.7):
            name = field.json_name if r.random() < 0.3 else field.name
            if not field.is_repeated:
                found[name] = _one(r, field, depth)
            elif depth < 3:
                found[name] = [
                    _one(r, field, depth) for _ in range(r.choices((0, 1, 2, 130), (1, 6, 3, 0.2))[0])
                ]
    return found


def _one(r: Random, field: FieldDescriptor, depth: int) -> Any:
    if r.random() < 0.08:
        return r.choice(_ODD)
    if field.message_type is not None:
        return _message(r, field.message_type, depth + 1) if depth < 5 else {}
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        known = field.enum_type.values
        return r.choice((r.choice(known).name, r.choice(known).number, 100, -1))
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return r.random() < 0.5
    if field.type == FieldDescriptor.TYPE_BYTES:
        key = r.choice((b"", b"\0", b"a", b"/d/e/%d" % r.randrange(20), b"k%d" % r.randrange(9)))
        return base64.b64encode(key).decode()
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return r.choice(("", "a", "http://127.0.0.1:1"))  # no root: users would be on
    number = r.choice((0, 1, 2, 5, 60, -1, r.randint(0, 200), 1 << 31, (1 << 63) - 1, 1 << 63))
    return str(number) if r.random() < 0.5 else number

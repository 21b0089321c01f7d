"""Heads of HTTP/1 as Go's net/http reads and writes them, where ``h11`` does otherwise.

A request of HTTP/1.0 is answered with its version. Its connection stays where its client asks for that and
the length of the answer is told. ``h11`` answers by HTTP/1.1, and ends the connection.
"""

from __future__ import annotations

import re
from enum import Enum
from http import HTTPStatus

import h11

_CONNECTION = re.compile(rb"(?i)\r\nconnection:[^\r]*")


class Old(Enum):
    """How a request of HTTP/1.0 is answered; None: it is none."""

    ENDS = "by 1.0, and the connection ends"
    STAYS = "by 1.0, and the connection stays"


def old(head: h11.Request) -> Old | None:
    """What a request asks for."""
    if head.http_version != b"1.0":
        return None
    wanted = b",".join(value for name, value in head.headers if name == b"connection").lower()
    tokens = {token.strip() for token in wanted.split(b",")}
    return Old.STAYS if b"keep-alive" in tokens and b"close" not in tokens else Old.ENDS


def by_old(answer: bytes, how: Old) -> bytes:
    """A head that ``h11`` has written, as a client of HTTP/1.0 is told."""
    line, blank, rest = answer.partition(b" ")
    head, end, body = _CONNECTION.sub(b"", rest).partition(b"\r\n\r\n")
    stays = b"\r\nConnection: keep-alive" if how is Old.STAYS else b""
    return line.replace(b"HTTP/1.1", b"HTTP/1.0") + blank + head + stays + end + body


def expects_less(head: h11.Request) -> bool:
    """Whether a request expects nothing but "100 Continue", if that."""
    expected = next((value for name, value in head.headers if name == b"expect"), b"")
    return not expected or b"100-continue" in (word.strip() for word in expected.lower().split(b","))


def reason(status: int) -> bytes:
    """Of a status, as it stands behind it."""
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""


def size_of(head: h11.Request) -> int:
    """Bytes of a request's head, as they came but for white space."""
    fields = sum(len(name) + len(value) + 4 for name, value in head.headers)
    return len(head.method) + len(head.target) + len(b"  HTTP/1.1\r\n\r\n") + fields

"""Requests of HTTP/1.0, and answers to them."""

from __future__ import annotations

import re
from enum import Enum

import h11

_CONNECTION = re.compile(rb"(?i)\r\nconnection:[^\r]*")


class Old(Enum):
    """How a request of HTTP/1.0 is answered, as by Go; ``h11`` answers by 1.1 and ends the connection."""

    ENDS = "by 1.0, and the connection ends"
    STAYS = "by 1.0, and the connection stays"


def old(head: h11.Request) -> Old | None:
    if head.http_version != b"1.0":
        return None
    wanted = b",".join(value for name, value in head.headers if name == b"connection").lower()
    tokens = {token.strip() for token in wanted.split(b",")}
    return Old.STAYS if b"keep-alive" in tokens and b"close" not in tokens else Old.ENDS


def by_old(answer: bytes, how: Old) -> bytes:
    """A head that ``h11`` has written, for a client of HTTP/1.0."""
    line, blank, rest = answer.partition(b" ")
    head, end, body = _CONNECTION.sub(b"", rest).partition(b"\r\n\r\n")
    stays = b"\r\nConnection: keep-alive" if how is Old.STAYS else b""
    return line.replace(b"HTTP/1.1", b"HTTP/1.0") + blank + head + stays + end + body

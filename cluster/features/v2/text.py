"""Text as Go's ``encoding/json`` writes it, and moments."""

from __future__ import annotations

from datetime import UTC, datetime

from cluster.gotext import json_escaped, json_string

NS = 10**9
_LONG = 1024  # bytes
_SPECIAL_ASCII = bytes(range(32)) + b'"\\<>&'


def quoted(text: bytes) -> str:
    """A string of JSON. What is no UTF-8 becomes ``\\ufffd``, byte by byte."""
    if len(text) > _LONG:
        return quoted_bytes(text).decode()
    return json_string(text.decode("utf-8", "surrogateescape"))


def quoted_bytes(text: bytes) -> bytes:
    """The same in UTF-8. Hot path: half the time where nothing is escaped."""
    if clear(text):
        return b'"%b"' % text
    return b'"%b"' % json_escaped(text) if len(text) > _LONG else quoted(text).encode()


def clear(text: bytes) -> bool:
    """Whether certainly nothing is escaped. Hot path."""
    return text.isascii() and len(text.translate(None, _SPECIAL_ASCII)) == len(text)


def moment(ns: int) -> str:
    """A moment (ns since 1970) in RFC 3339, UTC, without zeros at its end."""
    seconds, rest = divmod(ns, NS)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{rest:09d}".rstrip("0") + "Z" if rest else text + "Z"


def seconds_left(expires_ns: int, now_ns: int) -> int:
    """The ``ttl`` of a node: rounded up."""
    return -((now_ns - expires_ns) // NS)

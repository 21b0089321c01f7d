"""Text as Go's ``encoding/json`` writes it, and moments."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from cluster.gotext import json_escaped, json_string

NS = 10**9
_LONG = 1024  # bytes
LONG_BYTES = 16_384  # of a text that is quoted in steps
_STEP_BYTES = 32_768  # of such a step: 3 ms where each octet is escaped
_SPECIAL_ASCII = bytes(range(32)) + b'"\\<>&'


def quoted(text: bytes) -> str:
    """A string of JSON. What is no UTF-8 becomes ``\\ufffd``, byte by byte."""
    if len(text) > _LONG:
        return quoted_bytes(text).decode()
    return json_string(text.decode("utf-8", "surrogateescape"))


def quoted_or_left(text: bytes, left: list[bytes] | None) -> str:
    """The same; a long one is added to ``left``, and NUL, which JSON has nowhere, stands for it."""
    if left is None or len(text) <= LONG_BYTES:
        return quoted(text)
    left.append(text)
    return "\0"


def in_steps(made: bytes, left: list[bytes]) -> Iterator[bytes]:
    """What was made with ``quoted_or_left``, step by step."""
    first, *others = made.split(b"\0")
    yield first
    for text, other in zip(left, others, strict=True):
        yield b'"'
        at = 0
        while at < len(text):
            end = _step_end(text, at + _STEP_BYTES)
            yield quoted_bytes(text[at:end])[1:-1]
            at = end
        yield b'"' + other


def _step_end(text: bytes, end: int) -> int:
    """The last place up to ``end`` at which no character is cut in two: none has four octets that go on."""
    if end >= len(text):
        return len(text)
    return next((at for at in range(end, end - 4, -1) if text[at] & 0xC0 != 0x80), end)


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

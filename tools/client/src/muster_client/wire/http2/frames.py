"""Frames: RFC 9113, sections 4 to 7, and gRPC's prefix of messages."""

from __future__ import annotations

import struct
from collections.abc import Iterable

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10))
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITY_FLAG = 0x4, 0x8, 0x20
ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 2, 3, 4, 5
PROTOCOL_ERROR, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR = 1, 6, 7, 8, 9
ENHANCE_YOUR_CALM, INADEQUATE_SECURITY = 11, 12
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_WINDOW = 0x7FFFFFFF
WINDOW = 65_535  # of a connection and of a stream, unless something else is said
FRAME_BYTES = 16_384  # of a payload at most, unless something else is said

HEAD = struct.Struct(">IBI")  # length << 8 | kind, flags, stream
DATA_AND_PREFIX = struct.Struct(">IBIBI")  # a DATA frame's header, and the prefix of its message
PREFIX = struct.Struct(">BI")  # compressed, length
WORD = struct.Struct(">I")
SETTING = struct.Struct(">HI")
LAST_AND_CODE = struct.Struct(">II")  # of GOAWAY


class ProtocolError(Exception):
    """The server broke HTTP/2. ``code``: as GOAWAY tells it."""

    def __init__(self, message: str, code: int = PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    """A SETTINGS frame of ``(identifier, value)``."""
    return frame(SETTINGS, 0, 0, b"".join(SETTING.pack(key, value) for key, value in values))


def window_update(stream: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream, WORD.pack(increment))


def content(kind: int, flags: int, payload: bytes) -> bytes:
    """What DATA or HEADERS hold, without padding and priority. ProtocolError."""
    start, stop = 0, len(payload)
    if flags & PADDED:
        if not payload or payload[0] >= stop:
            raise ProtocolError("padding longer than its frame")
        start, stop = 1, stop - payload[0]
    if kind == HEADERS and flags & PRIORITY_FLAG:
        start += 5
    if start > stop:
        raise ProtocolError("a frame too short for what its flags say", FRAME_SIZE_ERROR)
    return payload[start:stop]

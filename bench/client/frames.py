"""Frames that the client writes: RFC 9113 sections 4 and 6, RFC 7541 section 6, gRPC's PROTOCOL-HTTP2."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from hpack.hpack import encode_integer

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)

ACK = 0x1
END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY_FLAG = 0x20

SETTINGS_ENABLE_PUSH = 2
SETTINGS_MAX_CONCURRENT_STREAMS = 3
SETTINGS_INITIAL_WINDOW_SIZE = 4
SETTINGS_MAX_FRAME_SIZE = 5

PROTOCOL_ERROR = 1
REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 7, 8, 9, 11

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_WINDOW = 0x7FFFFFFF
DEFAULT_WINDOW = 65_535

#: Frame header with length and type in one word: ``(length << 8 | type, flags, stream)``.
FRAME = struct.Struct(">IBI")
#: DATA frame header and gRPC message prefix in one: ``(length << 8, flags, stream, compressed, size)``.
DATA_AND_PREFIX = struct.Struct(">IBIBI")
PREFIX = struct.Struct(">BI")
WORD = struct.Struct(">I")
SETTING = struct.Struct(">HI")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return FRAME.pack(len(payload) << 8 | kind, flags, stream) + payload


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    """A SETTINGS frame of ``(identifier, value)`` pairs."""
    return frame(SETTINGS, 0, 0, b"".join(SETTING.pack(key, value) for key, value in values))


def window_update(stream: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream, WORD.pack(increment))


def _string(text: bytes) -> bytes:
    return bytes(encode_integer(len(text), 7)) + text


def header_block(path: str, authority: str, metadata: Iterable[tuple[str, str]] = (), *,
                 secure: bool = False) -> bytes:
    """The request header block of one gRPC method.

    It has static entries and literals without indexing (RFC 7541 section 6.2.2), so it holds at any time.
    """
    parts = [b"\x83\x87" if secure else b"\x83\x86"]  # :method POST, :scheme https or http
    # :path, :authority, content-type
    for index, text in ((4, path), (1, authority), (31, "application/grpc")):
        parts += (bytes(encode_integer(index, 4)), _string(text.encode()))
    for name, text in (("te", "trailers"), ("user-agent", "muster-bench"), *metadata):
        parts += (b"\x00", _string(name.lower().encode()), _string(text.encode()))
    return b"".join(parts)

"""Frames the client writes: constants and builders, nothing that keeps state.

RFC 9113 (HTTP/2) sections 4 and 6, RFC 7541 (HPACK) section 6, and gRPC's PROTOCOL-HTTP2.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)

ACK = 0x1
END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY_FLAG = 0x20

SETTINGS_HEADER_TABLE_SIZE = 1
SETTINGS_ENABLE_PUSH = 2
SETTINGS_MAX_CONCURRENT_STREAMS = 3
SETTINGS_INITIAL_WINDOW_SIZE = 4
SETTINGS_MAX_FRAME_SIZE = 5

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
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
    """One whole frame."""
    return FRAME.pack(len(payload) << 8 | kind, flags, stream) + payload


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    """A SETTINGS frame of ``(identifier, value)`` pairs."""
    return frame(SETTINGS, 0, 0, b"".join(SETTING.pack(key, value) for key, value in values))


def window_update(stream: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream, WORD.pack(increment))


def _integer(value: int, prefix_bits: int, first: int) -> bytes:
    """RFC 7541 section 5.1."""
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes((first | value,))
    out = bytearray((first | limit,))
    value -= limit
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _string(text: bytes) -> bytes:
    return _integer(len(text), 7, 0) + text


def header_block(
    path: str, authority: str, metadata: Iterable[tuple[str, str]] = (), *, secure: bool = False
) -> bytes:
    """The request header block of one gRPC method.

    Only static-table entries and literals without indexing (RFC 7541 section 6.2.2): the block means the
    same at any time, so it is built once per method and sent as it lies.
    """
    parts = [b"\x83\x87" if secure else b"\x83\x86"]  # :method POST, :scheme https or http
    # :path, :authority, content-type
    for index, text in ((4, path), (1, authority), (31, "application/grpc")):
        parts += (_integer(index, 4, 0), _string(text.encode()))
    for name, text in (("te", "trailers"), ("user-agent", "muster-bench"), *metadata):
        parts += (b"\x00", _string(name.lower().encode()), _string(text.encode()))
    return b"".join(parts)

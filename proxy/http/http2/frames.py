"""What is on the wire: frame types, flags, error codes, and how a server's frames are written.

A frame is 3 bytes of length, 1 of type, 1 of flags, 4 of stream id, then the payload (RFC 9113 section 4.1).
Length and type are read as one 32-bit word.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

FRAME_HEADER = Struct(">IBI")  # (length << 8 | type, flags, stream id)
HEADER_SIZE = 9
U32 = Struct(">I")
SETTING = Struct(">HI")

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY_FLAG = 0x20

MAX_STREAM_ID = 0x7FFF_FFFF
MAX_WINDOW = 0x7FFF_FFFF
DEFAULT_WINDOW = 65_535
DEFAULT_MAX_FRAME = 16_384

HEADER_TABLE_SIZE = 1
ENABLE_PUSH = 2
MAX_CONCURRENT_STREAMS = 3
INITIAL_WINDOW_SIZE = 4
MAX_FRAME_SIZE = 5
MAX_HEADER_LIST_SIZE = 6


class ErrorCode(IntEnum):
    """RFC 9113 section 7."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class ConnectionFault(Exception):
    """The peer broke a rule that ends the connection: GOAWAY with this code, then close."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class StreamFault(Exception):
    """The peer broke a rule that ends one stream: RST_STREAM with this code."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return FRAME_HEADER.pack(len(payload) << 8 | kind, flags, stream_id) + payload


def settings_frame(values: dict[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(SETTING.pack(key, value) for key, value in values.items()))


SETTINGS_ACK = frame(SETTINGS, ACK, 0)


def rst_stream(stream_id: int, code: int) -> bytes:
    return FRAME_HEADER.pack(4 << 8 | RST_STREAM, 0, stream_id) + U32.pack(code)


def window_update(stream_id: int, increment: int) -> bytes:
    return FRAME_HEADER.pack(4 << 8 | WINDOW_UPDATE, 0, stream_id) + U32.pack(increment)


def ping(payload: bytes, ack: bool = False) -> bytes:
    """A PING frame; ``payload`` is 8 bytes."""
    return FRAME_HEADER.pack(8 << 8 | PING, ACK if ack else 0, 0) + payload


def goaway(last_stream_id: int, code: int, debug: bytes = b"") -> bytes:
    return frame(GOAWAY, 0, 0, U32.pack(last_stream_id) + U32.pack(code) + debug)


def header_frames(
    stream_id: int, block: bytes, end_stream: bool, max_frame: int = DEFAULT_MAX_FRAME
) -> bytes:
    """HEADERS and, for a block longer than a frame, CONTINUATION."""
    flags = END_STREAM if end_stream else 0
    if len(block) <= max_frame:
        return FRAME_HEADER.pack(len(block) << 8 | HEADERS, flags | END_HEADERS, stream_id) + block
    out = [frame(HEADERS, flags, stream_id, block[:max_frame])]
    for start in range(max_frame, len(block), max_frame):
        last = start + max_frame >= len(block)
        out.append(
            frame(CONTINUATION, END_HEADERS if last else 0, stream_id, block[start : start + max_frame])
        )
    return b"".join(out)


@dataclass(slots=True, eq=False)
class PartialBlock:
    """A header block whose CONTINUATION frames have not all come."""

    stream_id: int
    ended: bool
    self_dependent: bool
    fragments: list[bytes]
    size: int
    began: float  # time


def unpad(payload: bytes) -> bytes:
    """Sections 6.1 and 6.2: the first octet says how many the padding has."""
    if not payload:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "no room for the pad length")
    if payload[0] >= len(payload):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - payload[0]]

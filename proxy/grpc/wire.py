"""gRPC's wire form, pure: message framing, ready-made header blocks, timeouts, status messages.

Texts are grpc-go's, because etcd's clients compare them.
"""

from __future__ import annotations

import zlib
from struct import Struct
from typing import Any

from cluster.errors import MESSAGE_TOO_LARGE
from proxy.http.http2 import encode_block
from proxy.http.http2.frames import DATA, END_HEADERS, END_STREAM, HEADERS

OK = 0
CANCELLED = 1
UNKNOWN = 2
INVALID_ARGUMENT = 3
DEADLINE_EXCEEDED = 4
RESOURCE_EXHAUSTED = 8
UNIMPLEMENTED = 12
INTERNAL = 13
FAULT = "etcdserver: internal error"  # what a client hears of a fault of this program

PREFIX = Struct(">BI")  # compressed flag, length
RESPONSE = encode_block([(b":status", b"200"), (b"content-type", b"application/grpc")])
_TRAILERS_OK = encode_block([(b"grpc-status", b"0")])
_HEAD = Struct(f">IBI{len(RESPONSE)}sIBIBI")
_TAIL = Struct(f">IBI{len(_TRAILERS_OK)}s")
_HEAD_WORD = len(RESPONSE) << 8 | HEADERS
_TAIL_WORD = len(_TRAILERS_OK) << 8 | HEADERS
_TAIL_FLAGS = END_HEADERS | END_STREAM

_TIMEOUT_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_MAX_TIMEOUT_S = 315_360_000.0  # ten years; "99999999H" is a client's way to say never
_MAX_ENDINGS = 1024
_MAX_MEMBERS = 64  # of a gzip file (RFC 1952 section 2.2): each copies what is behind it
SMALL_BYTES = 64
MAX_SEND_BYTES = 2**31 - 1  # of an answer (etcd: v3rpc/grpc.go, maxSendBytes)
MAX_MESSAGE_CHARS = 1024  # of grpc-message, before it is percent-encoded

_small: dict[int, Any] = {}
_endings: dict[tuple[int, str, int], bytes] = {}


class Refused(Exception):
    """What the client sent ends its call with this status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def reply_head(stream_id: int, size: int, _pack=_HEAD.pack) -> bytes:  # type: ignore[no-untyped-def]
    """All before a unary answer of ``size`` bytes: HEADERS frame, DATA frame header, message prefix."""
    return _pack(_HEAD_WORD, END_HEADERS, stream_id, RESPONSE, size + 5 << 8 | DATA, 0, stream_id, 0, size)  # type: ignore[no-any-return]


def reply_tail(stream_id: int, _pack=_TAIL.pack) -> bytes:  # type: ignore[no-untyped-def]
    """The trailers of status 0."""
    return _pack(_TAIL_WORD, _TAIL_FLAGS, stream_id, _TRAILERS_OK)  # type: ignore[no-any-return]


def small_reply(stream_id: int, message: bytes) -> bytes:
    """A whole unary answer of status 0; for short messages, whose sizes repeat."""
    size = len(message)
    pack = _small.get(size)
    if pack is None:
        pack = _small[size] = Struct(f"{_HEAD.format}{size}s{_TAIL.format[1:]}").pack
    return pack(
        _HEAD_WORD, END_HEADERS, stream_id, RESPONSE, size + 5 << 8 | DATA, 0, stream_id, 0, size, message,
        _TAIL_WORD, _TAIL_FLAGS, stream_id, _TRAILERS_OK)


class Packed(bytes):
    """A message that is compressed."""

    __slots__ = ()


def split_messages(buffer: bytearray, limit: int) -> list[bytes]:
    """Take the complete messages off the front of ``buffer``. ``Refused`` on a broken one."""
    found: list[bytes] = []
    pos = 0
    size = len(buffer)
    while size - pos >= 5:
        flag, length = PREFIX.unpack_from(buffer, pos)
        if flag > 1:
            raise Refused(INTERNAL, f"grpc: received unexpected payload format {flag}")
        if length > limit:
            raise Refused(RESOURCE_EXHAUSTED, too_large(length, limit))
        if size - pos - 5 < length:
            break
        message = bytes(memoryview(buffer)[pos + 5 : pos + 5 + length])
        found.append(Packed(message) if flag else message)
        pos += 5 + length
    if pos:
        del buffer[:pos]
    return found


def too_large(size: int, limit: int) -> str:
    return MESSAGE_TOO_LARGE.text.format(size=size, limit=limit)


def too_large_to_send(size: int) -> str:
    return f"grpc: trying to send message larger than max ({size} vs. {MAX_SEND_BYTES})"


def decompress(message: bytes, limit: int, encoding: bytes) -> bytes:
    """A message whose compressed flag is set. ``Refused`` if it is not what it says, or too large."""
    if encoding in (b"", b"identity"):
        raise Refused(INTERNAL, "grpc: compressed flag set with identity or empty encoding")
    plain, rest = b"", message
    for _ in range(_MAX_MEMBERS):
        unpacker = zlib.decompressobj(wbits=31)
        try:  # never inflate further than we would take
            plain += unpacker.decompress(rest, limit + 1 - len(plain))
        except zlib.error as error:
            raise Refused(INTERNAL, f"grpc: failed to decompress the received message: {error}") from None
        if len(plain) > limit:
            raise Refused(
                RESOURCE_EXHAUSTED, f"grpc: received message after decompression larger than max {limit}"
            )
        if not unpacker.eof:
            raise Refused(INTERNAL, "grpc: failed to decompress the received message: unexpected EOF")
        rest = unpacker.unused_data
        if not rest:
            return plain
    raise Refused(INTERNAL, "grpc: failed to decompress the received message: too many members")


def ending(status: int, message: str, http_status: int = 0) -> bytes:
    """The block that ends a call: trailers, or with an HTTP status the whole answer. A message is cut to
    MAX_MESSAGE_CHARS: it may repeat the client's, and Huffman encoding takes the square of its length."""
    message = message[:MAX_MESSAGE_CHARS]
    key = (status, message, http_status)
    block = _endings.get(key)
    if block is None:
        fields = (
            [(b":status", b"%d" % http_status), (b"content-type", b"application/grpc")] if http_status else []
        )
        fields.append((b"grpc-status", b"%d" % status))
        if message:
            fields.append((b"grpc-message", encode_message(message)))
        block = encode_block(fields)
        if len(_endings) >= _MAX_ENDINGS:
            _endings.clear()
        _endings[key] = block
    return block


def encode_message(message: str) -> bytes:
    """``grpc-message``: UTF-8, percent-encoded outside printable ASCII."""
    return b"".join(
        bytes((c,)) if 0x20 <= c <= 0x7E and c != 0x25 else b"%%%02X" % c for c in message.encode()
    )


def parse_timeout(text: bytes) -> float:
    """Seconds of a ``grpc-timeout`` value. ValueError says what grpc-go says."""
    if len(text) < 2:
        raise ValueError(f"transport: timeout string is too short: {quote(text)}")
    if len(text) > 9:
        raise ValueError(f"transport: timeout string is too long: {quote(text)}")
    unit = _TIMEOUT_UNITS.get(text[-1:])
    if unit is None:
        raise ValueError(f"transport: timeout unit is not recognized: {quote(text)}")
    if not text[text[:1] in b"+-" : -1].isdigit():
        raise ValueError(f"strconv.ParseInt: parsing {quote(text[:-1])}: invalid syntax")
    return min(int(text[:-1]) * unit, _MAX_TIMEOUT_S)


def text_of(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def quote(raw: bytes) -> str:
    return '"' + text_of(raw).replace("\\", "\\\\").replace('"', '\\"') + '"'

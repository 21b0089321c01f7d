"""What the headers of an answer say of its call. Whole blocks are remembered: a server answers nearly every
call by the same two, and a look-up costs a hundredth of decoding."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

import grpc

from muster_client.wire.http2 import frames
from muster_client.wire.http2.hpack import Decoder

Code = grpc.StatusCode
MAX_CACHED_BLOCKS = 256
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in Code}
# https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md
_OF_HTTP = {
    b"400": Code.INTERNAL, b"401": Code.UNAUTHENTICATED, b"403": Code.PERMISSION_DENIED,
    b"404": Code.UNIMPLEMENTED, b"429": Code.UNAVAILABLE, b"502": Code.UNAVAILABLE,
    b"503": Code.UNAVAILABLE, b"504": Code.UNAVAILABLE,
}
# https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#errors
_OF_RESET = {
    frames.REFUSED_STREAM: Code.UNAVAILABLE, frames.CANCEL: Code.CANCELLED,
    frames.ENHANCE_YOUR_CALM: Code.RESOURCE_EXHAUSTED, frames.INADEQUATE_SECURITY: Code.PERMISSION_DENIED,
}
NOT_SENT = "not sent: "  # so begins what is said of a call that the server has certainly not looked at


class CallError(Exception):
    """A call that ended otherwise than well: by the server's status, or with its connection."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{code.name}: {details}")
        self.code, self.details = code, details


def reset(code: int) -> CallError:
    """The server ended one stream."""
    prefix = NOT_SENT if code == frames.REFUSED_STREAM else ""
    return CallError(
        _OF_RESET.get(code, Code.INTERNAL), f"{prefix}the server reset the stream, HTTP/2 code {code}")


@dataclass(slots=True, frozen=True)
class Block:
    """``refused``: the answer is no gRPC's; ``outcome``: how the call ended, if it ends with this block, None
    is well."""

    refused: CallError | None
    outcome: CallError | None


class Blocks:
    """Those of one connection. A block that is remembered holds while the dynamic table is as it was."""

    def __init__(self) -> None:
        self._decoder = Decoder()
        self.cache: dict[bytes, Block] = {}
        self.served = False  # one was gRPC's

    def read(self, data: bytes) -> Block:
        """HeaderError."""
        if (found := self.cache.get(data)) is not None:
            return found
        before = self._decoder.changes
        block = _judged(dict(self._decoder.decode(data)))
        self.served = self.served or block.refused is None
        if self._decoder.changes != before:
            self.cache.clear()
        else:
            if len(self.cache) >= MAX_CACHED_BLOCKS:
                self.cache.clear()
            self.cache[data] = block
        return block


def _judged(headers: dict[bytes, bytes]) -> Block:
    refused = None
    status = headers.get(b":status", b"200")
    if status != b"200" and not status.startswith(b"1"):  # 1xx: the answer is still to come
        refused = CallError(_OF_HTTP.get(status, Code.UNKNOWN), f"HTTP status {_text(status)}")
    elif not headers.get(b"content-type", b"application/grpc").startswith(b"application/grpc"):
        refused = CallError(Code.UNKNOWN, f"no gRPC: content-type {_text(headers[b'content-type'])}")
    told = headers.get(b"grpc-status")
    if told == b"0":
        return Block(refused, refused)
    if told is None:
        return Block(refused, refused or CallError(Code.INTERNAL, "the answer has no grpc-status"))
    code = _CODES.get(int(told) if told.isdigit() else -1, Code.UNKNOWN)
    return Block(refused, CallError(code, unquote(_text(headers.get(b"grpc-message", b"")))))


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")

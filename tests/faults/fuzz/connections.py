"""What a connection to the client port may bring: header blocks and frames of HTTP/2, requests of HTTP/1.1,
anything."""

from __future__ import annotations

from random import Random

import hpack

from proxy.http.http2 import PREFACE
from proxy.http.http2 import frames as f
from tests.faults.fuzz import messages

_USUAL = {":method": "POST", ":scheme": "http", ":path": "/etcdserverpb.KV/Put", ":authority": "x",
          "content-type": "application/grpc", "te": "trailers"}
_ODD_NAMES = (
    ":path", ":path", ":method", ":scheme", ":authority", ":status", "content-type", "te", "content-length",
    "grpc-timeout", "grpc-encoding", "grpc-accept-encoding", "connection", "transfer-encoding", "host",
    "x-bin", "token", "authorization", "hasleader", "X-Upper", "", "a b", "user-agent", "cookie", "expect",
)
_ODD_VALUES = (
    "", "/", "*", "GET", "0", "-1", "9" * 30, "9" * 5000, "1S", "99999999H", "1n", "0m", "gzip",
    "identity,gzip", "chunked", "true", "application/grpc+json", "text/plain", "a" * 9000, "\0", "\r\n",
    "\x7f", "é", "%", "%zz", "=", "AA=",
)
_HTTP1 = (
    b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: text/plain;version=0.0.4\r\n\r\n",
    b"GET /health?serializable=true&exclude=NOSPACE HTTP/1.1\r\nHost: x\r\n\r\n",
    b"HEAD /readyz?verbose HTTP/1.0\r\n\r\n",
    b"GET /livez/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b'POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"key":1}',
    b"PUT /v2/keys/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: "
    b"100-continue\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://x/debug/vars HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade, "
    b"HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
)


def http1(r: Random) -> bytes:
    """Requests one after the other, or what looks like some."""
    data = b"".join(r.choice(_HTTP1) for _ in range(r.randint(1, 4)))
    return messages.mutated(r, data) if r.random() < 0.8 else data


def http2(r: Random) -> bytes:
    """A connection with calls whose fields, frames or bytes are odd."""
    encoder = hpack.Encoder()
    out = bytearray(PREFACE + f.settings_frame({}))
    for number in range(1, 2 * r.randint(2, 8), 2):
        out += f.header_frames(number, _block(r, encoder), False)
        out += f.frame(f.DATA, f.END_STREAM, number, _message(r))
        while r.random() < 0.4:
            out += _frame(r, number)
    return messages.mutated(r, bytes(out)) if r.random() < 0.3 else bytes(out)


def anything(r: Random) -> bytes:
    """Bytes of no protocol."""
    return r.choice((b"", PREFACE[:10], PREFACE, b"\x16\x03\x01", b"\n" * 50)) + r.randbytes(
        r.choice((0, 1, 9, 100, 5000))
    )


def _block(r: Random, encoder: hpack.Encoder) -> bytes:
    if r.random() < 0.25:
        return r.choice(
            (
                r.randbytes(r.randint(0, 60)), b"\x20" * 9, b"\x3f" + b"\xff" * 9, b"\xff" * 5 + b"\x7f",
                b"\x80", b"",
            )
        )
    fields = dict(_USUAL) | {":path": r.choice(list(messages.METHODS))}
    listed = list(fields.items())
    for _ in range(r.randint(0, 3)):
        listed.insert(r.randint(0, len(listed)), (r.choice(_ODD_NAMES), r.choice(_ODD_VALUES)))
    if r.random() < 0.2:
        del listed[r.randrange(len(listed))]
    block: bytes = encoder.encode(listed, huffman=r.random() < 0.5)
    return messages.mutated(r, block) if r.random() < 0.3 else block


def _message(r: Random) -> bytes:
    _, bodies = messages.requests(r)
    data = b"".join(
        r.choice((b"\0", b"\0", b"\0", b"\1", b"\xff"))
        + (len(body) + r.choice((0, 0, 0, 1, -1, 1 << 31)) & 0xFFFFFFFF).to_bytes(4, "big")
        + body
        for body in bodies
    )
    return data[: r.choice((16_384, 16_384, 5, 3))]


def _frame(r: Random, number: int) -> bytes:
    kind, flags = r.choice((*range(11), 255)), r.choice((0, 1, 4, 5, 8, 0x20, 0xFF))
    stream = r.choice((0, number, number, number + 2, 2, (1 << 31) - 1))
    payload = r.choice(
        (
            b"", bytes(4), b"\xff" * 4, bytes(8), r.randbytes(5), r.randbytes(6), bytes(6) * 20,
            b"\0\4\x7f\xff\xff\xff",
        )
    )
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload

"""A client that says frame by frame what a test wants, beside the pure connection."""

from __future__ import annotations

import hpack

from proxy.grpc.calls import Call, Peer
from proxy.grpc.deadlines import Deadlines
from proxy.grpc.registry import Registry
from proxy.http.http2 import PREFACE, Connection, Limits
from proxy.http.http2 import frames as f
from proxy.http.memory import Memory
from tests.unit.http2.client import Frame, parse

REQUEST = {
    ":method": "POST", ":scheme": "http", ":path": "/a.B/Echo", ":authority": "x",
    "content-type": "application/grpc", "te": "trailers",
}  # fmt: skip


class Stream:
    """A stream method that writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self.calls: list[Call] = []

    def opened(self, call: Call) -> None:
        self.calls.append(call)
        self.heard.append("opened")

    def message(self, call: Call, data: bytes) -> None:
        self.heard.append(data)

    def half_closed(self, call: Call) -> None:
        self.heard.append("half closed")

    def cancelled(self, call: Call) -> None:
        self.heard.append("cancelled")


class Talk:
    """A connection with a few methods."""

    def __init__(self, registry: Registry | None = None, memory: Memory | None = None, **limits: int) -> None:
        self.armed: list[float] = []
        self.deadlines = Deadlines(self.armed.append)
        self.stream = Stream()
        self.parked: list[Call] = []
        self.cancelled: list[Call] = []
        if registry is None:
            registry = Registry()
            registry.unary("/a.B/Echo", lambda call, data: call.reply(data))
            registry.unary("/a.B/Park", self._park)
            registry.stream("/a.B/Bidi", self.stream)
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.server = Connection(
            registry.open, Limits(**limits), 100.0, lambda: None, Peer("1.2.3.4:5", self.deadlines), memory
        )
        self.server.receive(PREFACE + f.settings_frame({}), 100.0)
        self.server.take()

    def _park(self, call: Call, data: bytes) -> None:
        call.on_cancel = self.cancelled.append
        self.parked.append(call)

    def headers(self, stream_id: int, end: bool = False, **changes: str | bytes | None) -> None:
        fields: dict[str, str | bytes] = dict(REQUEST)
        for name, value in changes.items():
            name = name.replace("_", "-")
            name = ":" + name if ":" + name in fields else name
            if value is None:
                del fields[name]
            else:
                fields[name] = value
        self.server.receive(f.header_frames(stream_id, self.encoder.encode(list(fields.items())), end), 100.0)

    def data(self, stream_id: int, data: bytes, end: bool = True) -> None:
        self.server.receive(f.frame(f.DATA, f.END_STREAM if end else 0, stream_id, data), 100.0)

    def take(self) -> list[Frame]:
        out = b""
        while piece := self.server.take():
            out += piece
        return parse(out)

    def answer(self, stream_id: int) -> tuple[dict[str, str], bytes]:
        """All header fields and all data of a stream that must have ended."""
        fields: dict[str, str] = {}
        data = b""
        ended = False
        for frame in self.take():
            if frame.kind == f.HEADERS:
                found = dict(self.decoder.decode(frame.payload))
                if frame.stream_id == stream_id:
                    fields |= found
                    ended = ended or bool(frame.flags & f.END_STREAM)
            elif frame.kind == f.DATA and frame.stream_id == stream_id:
                data += frame.payload
        assert ended, "the call is not answered"
        return fields, data

    def status(self, stream_id: int) -> tuple[int, str]:
        fields, _ = self.answer(stream_id)
        return int(fields["grpc-status"]), fields.get("grpc-message", "")


def message(data: bytes, flag: int = 0) -> bytes:
    return bytes((flag,)) + len(data).to_bytes(4, "big") + data

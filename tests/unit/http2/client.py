"""A raw HTTP/2 client for tests: writes any frame, right or wrong, and reads what comes back."""

from __future__ import annotations

from typing import NamedTuple

import hpack

from proxy.http.http2 import PREFACE, Connection, ErrorCode, HeaderBlock, Limits, Stream
from proxy.http.http2 import frames as f

REQUEST = [
    (":method", "POST"), (":scheme", "http"), (":path", "/a.B/C"), (":authority", "localhost"),
    ("content-type", "application/grpc"), ("te", "trailers"),
]  # fmt: skip


class Frame(NamedTuple):
    kind: int
    flags: int
    stream_id: int
    payload: bytes


class Recorder(Stream):
    """Writes down what happens to it. Answers nothing by itself."""

    __slots__ = ("body", "ended", "events")

    def opened(self, ended: bool) -> None:
        self.body = bytearray()
        self.ended = ended
        self.events: list[tuple[str, object]] = [("opened", ended)]

    def received(self, data: bytes, ended: bool) -> None:
        self.body += data
        self.ended = self.ended or ended
        self.events.append(("data", data))

    def trailers(self, block: HeaderBlock) -> None:
        self.ended = True
        self.events.append(("trailers", block.fields))

    def cancelled(self, code: int) -> None:
        self.events.append(("cancelled", code))

    def drained(self) -> None:
        self.events.append(("drained", self.queued))


class Client:
    """One connection, its server end included."""

    def __init__(
        self, limits: Limits | None = None, settings: dict[int, int] | None = None, greet: bool = True
    ) -> None:
        self.now = 0.0
        self.notified = 0
        self.opened: list[Recorder] = []
        self.server = Connection(self._open, limits or Limits(), self.now, self._notify)
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.frames: list[Frame] = []
        self._unread = b""
        if greet:
            self.send(PREFACE, f.settings_frame(settings or {}))
            kinds = [frame.kind for frame in self.take()]
            assert kinds in ([f.SETTINGS, f.WINDOW_UPDATE, f.SETTINGS], [f.SETTINGS, f.SETTINGS])

    def _open(self, connection: Connection, stream_id: int, headers: HeaderBlock) -> Recorder:
        stream = Recorder(connection, stream_id, headers)
        self.opened.append(stream)
        return stream

    def _notify(self) -> None:
        self.notified += 1

    # -- to the server

    def send(self, *parts: bytes) -> None:
        self.server.receive(b"".join(parts), self.now)

    def block(self, fields: list[tuple[str, str]] | None = None) -> bytes:
        return self.encoder.encode(REQUEST if fields is None else fields)

    def request(
        self, stream_id: int, end: bool = False, fields: list[tuple[str, str]] | None = None
    ) -> Recorder:
        """Open a stream that must be accepted."""
        self.send(f.header_frames(stream_id, self.block(fields), end))
        assert self.opened, "the stream was not opened"
        assert self.opened[-1].id == stream_id
        return self.opened[-1]

    def data(self, stream_id: int, data: bytes, end: bool = False) -> None:
        self.send(f.frame(f.DATA, f.END_STREAM if end else 0, stream_id, data))

    # -- from the server

    def take(self) -> list[Frame]:
        """All frames said since the last call."""
        while data := self.server.take():
            self._unread += data
            if not self.server.writable:
                break
        found = parse(self._unread)
        self._unread = b""
        self.frames += found
        return found

    def goaway(self) -> ErrorCode | None:
        """The code of the GOAWAY that ended the connection."""
        for frame in self.take():
            if frame.kind == f.GOAWAY:
                assert self.server.finished
                return ErrorCode(f.U32.unpack_from(frame.payload, 4)[0])
        assert not self.server.finished
        return None

    def reset(self, stream_id: int) -> ErrorCode | None:
        """The code of the RST_STREAM on a stream; the connection must live on, and answer a ping."""
        found = None
        self.send(f.ping(b"\1" * 8))
        frames = self.take()
        assert Frame(f.PING, f.ACK, 0, b"\1" * 8) in frames, "the connection is gone"
        for frame in frames:
            if frame.kind == f.RST_STREAM and frame.stream_id == stream_id:
                found = ErrorCode(f.U32.unpack(frame.payload)[0])
        return found


def parse(data: bytes) -> list[Frame]:
    """Frames of a byte string that must end with a whole one."""
    found = []
    pos = 0
    while pos < len(data):
        word, flags, stream_id = f.FRAME_HEADER.unpack_from(data, pos)
        end = pos + 9 + (word >> 8)
        assert end <= len(data), "a frame is cut short"
        found.append(Frame(word & 0xFF, flags, stream_id, data[pos + 9 : end]))
        pos = end
    return found

"""A client over HTTP/2: gRPC and JSON side by side, windows of any size, resets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import hpack

from proxy.http.http2 import PREFACE, Connection
from proxy.http.http2 import frames as f
from tests.unit.proxy.random.connected.clients import LIMITS, Client
from tests.unit.proxy.random.requests import STREAMS

if TYPE_CHECKING:
    from tests.unit.proxy.random.connected.run import Connected

_CANCEL = (8).to_bytes(4, "big")
_FRAME_BYTES = 16_384
_MOST_WINDOW = 1 << 29


@dataclass(eq=False)
class Asked:
    """A stream whose client may send more."""

    method: str
    left: bytes = b""
    last: bool = True  # nothing comes behind ``left``
    ended: bool = False


class Http2Client(Client):
    def __init__(self, world: Connected) -> None:
        super().__init__(world)
        self._encoder = hpack.Encoder()
        self._next = 1
        self._open: dict[int, Asked] = {}
        window = self.random.choice((65_535, 65_535, 100, 20_000))
        self.send(PREFACE + f.settings_frame({f.INITIAL_WINDOW_SIZE: window}))

    @property
    def server(self) -> Connection | None:
        return self.connection.http2

    def go_on(self) -> None:
        server = self.server
        if server is None or server.finished:
            return
        random = self.random
        self._open = {number: one for number, one in self._open.items() if number in server.streams}
        doing = random.choices(("ask", "more", "reset", "room", "room of one"), (35, 15, 12, 13, 20))[0]
        if doing == "ask":
            self._ask()
        elif doing == "room" and server.send_window < _MOST_WINDOW:
            self.send(f.window_update(0, random.choice((1000, 100_000))))
        elif self._open:
            number = random.choice(list(self._open))
            if doing == "more":
                self._more(number)
            elif doing == "reset":
                del self._open[number]
                self.send(f.frame(f.RST_STREAM, 0, number, _CANCEL))
            elif server.streams[number].send_window < _MOST_WINDOW:
                self.send(f.window_update(number, random.choice((10, 1000, 300_000))))

    def _ask(self) -> None:
        random, number = self.random, self._next
        self._next += 2
        fields = [(":method", "POST"), (":scheme", "http"), (":authority", "x")]
        if random.random() < 0.3:
            method, path, text = self.json()
            one = Asked(method, text.encode(), last=random.random() < 0.8)
        else:
            asked = self.world.requests.any()
            path = self.world.paths[asked.method]
            one = Asked(asked.method, last=asked.method not in STREAMS)
            one.left = self._of_stream(one.method) if asked.message is None else _framed(
                asked.message.SerializeToString())
            fields += [("content-type", "application/grpc"), ("te", "trailers")]
        fields.insert(2, (":path", path))
        if random.random() < 0.4:
            fields.append(("grpc-timeout", random.choice(LIMITS)))
        if random.random() < 0.1:
            fields.append(("hasleader", "true"))
        self._open[number] = one
        self.send(f.header_frames(number, self._encoder.encode(fields), False))
        if random.random() < 0.8:
            self._send_of(number)

    def _of_stream(self, method: str) -> bytes:
        return _framed(self.world.requests.of_stream(method).SerializeToString())

    def _more(self, number: int) -> None:
        one = self._open[number]
        if one.method in STREAMS and not one.last:
            if self.random.random() < 0.1:
                one.last = True
            elif self.random.random() < 0.6 and not one.left:
                one.left = self._of_stream(one.method)
        self._send_of(number)

    def _send_of(self, number: int) -> None:
        """What the windows have room for."""
        one, server = self._open[number], self.server
        while server is not None and not (self._coming or one.ended or server.finished):
            stream = server.streams.get(number)
            if stream is None:
                return
            room = min(stream.receive_window, server._receive_window, _FRAME_BYTES)
            piece, one.left = one.left[:max(room, 0)], one.left[max(room, 0):]
            one.ended = one.last and not one.left
            if not (piece or one.ended):
                return
            self.send(f.frame(f.DATA, f.END_STREAM if one.ended else 0, number, piece))


def _framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message

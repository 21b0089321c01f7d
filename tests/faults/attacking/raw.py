"""A gRPC client down to its frames: it may send what no library sends, and not read what it is owed."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterable
from types import TracebackType

import hpack

from proxy.http.http2 import PREFACE
from proxy.http.http2 import frames as f

LIMIT_S = 30.0
_READ = 1 << 18
_ACKNOWLEDGED_BYTES = 1 << 22  # taken off the connection's window before it is given back


def gentle() -> None:
    """The calling thread gets CPU after everybody else, since an attacker's machine is not the hosts'."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def message(body: bytes, compressed: bool = False) -> bytes:
    """One gRPC message."""
    return bytes((compressed,)) + len(body).to_bytes(4, "big") + body


class Raw:
    """One connection. ``window``: what the server may send on a stream; the connection's own is as large as
    can be."""

    def __init__(
        self, endpoint: str, *, window: int = f.MAX_WINDOW, receive_buffer: int = 0, statuses: bool = True
    ) -> None:
        """``receive_buffer``: of the kernel, in bytes; 0: its own choice. ``statuses``: see :attr:`ended`."""
        host, _, port = endpoint.rpartition(":")
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(LIMIT_S)
        self.socket.connect((host, int(port)))
        self.encoder = hpack.Encoder()
        self._decoder = hpack.Decoder()
        self.next_id = 1
        # streams that the server has ended, with grpc-status if asked for, or "reset"
        self.ended: dict[int, str] = {}
        self._statuses = statuses
        self.received: dict[int, int] = {}  # octets of DATA
        self.goaway = b""
        self._owed = 0
        self._unread = bytearray()
        self._may_send = f.DEFAULT_WINDOW
        self._may_send_on: dict[int, int] = {}
        self._first_window = 0  # until its SETTINGS have come
        self.send(PREFACE, f.settings_frame({f.INITIAL_WINDOW_SIZE: window}),
                  f.window_update(0, f.MAX_WINDOW - f.DEFAULT_WINDOW))
        while not self._first_window:
            assert self.read(), "the server closed the connection before its SETTINGS"

    def __enter__(self) -> Raw:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, *parts: bytes) -> None:
        """Bytes as they are, whatever any window says."""
        self.socket.sendall(b"".join(parts))

    def block(self, path: str, *more: tuple[str, str]) -> bytes:
        """The header block of a call."""
        return self.encoder.encode(
            [
                (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"),
                ("content-type", "application/grpc"), ("te", "trailers"), *more,
            ]
        )

    def call_frames(
        self, path: str, *bodies: bytes, end: bool = True, more: Iterable[tuple[str, str]] = ()
    ) -> bytes:
        """The frames of a call with these messages, on the next stream."""
        stream, self.next_id = self.next_id, self.next_id + 2
        data = b"".join(map(message, bodies))
        pieces = [data[at : at + f.DEFAULT_MAX_FRAME] for at in range(0, len(data), f.DEFAULT_MAX_FRAME)]
        frames = [f.frame(f.DATA, f.END_STREAM if end and at == len(pieces) - 1 else 0, stream, piece)
                  for at, piece in enumerate(pieces)]
        return f.header_frames(stream, self.block(path, *more), end and not pieces) + b"".join(frames)

    def call(self, path: str, *bodies: bytes, end: bool = True, more: Iterable[tuple[str, str]] = ()) -> int:
        """Send such a call; the number of its stream."""
        self.send(self.call_frames(path, *bodies, end=end, more=more))
        return self.next_id - 2

    def call_in_turn(self, path: str, *bodies: bytes, end: bool = True) -> int:
        """Send a call whose messages go as the server's windows allow; the number of its stream."""
        stream = self.call(path, end=False)
        data = b"".join(map(message, bodies))
        at = 0
        while at < len(data):
            room = min(self._may_send, self._may_send_on.get(stream, self._first_window), f.DEFAULT_MAX_FRAME)
            if room <= 0:
                if stream in self.ended or not self.read():
                    return stream
                continue
            piece = data[at : at + room]
            at += len(piece)
            self._may_send -= len(piece)
            self._may_send_on[stream] = self._may_send_on.get(stream, self._first_window) - len(piece)
            self.send(f.frame(f.DATA, f.END_STREAM if end and at == len(data) else 0, stream, piece))
        return stream

    def read(self) -> bool:
        """Take what the server says, waiting for something; False at its end."""
        try:
            data = self.socket.recv(_READ)
        except ConnectionError:
            return False
        self._unread += data
        at, size = 0, len(self._unread)
        while at + f.HEADER_SIZE <= size:
            word, flags, stream = f.FRAME_HEADER.unpack_from(self._unread, at)
            end = at + f.HEADER_SIZE + (word >> 8)
            if end > size:
                break
            self._take(word & 0xFF, flags, stream, bytes(self._unread[at + f.HEADER_SIZE : end]))
            at = end
        del self._unread[:at]
        return bool(data)

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == f.DATA:
            self.received[stream] = self.received.get(stream, 0) + len(payload)
            self._owed += len(payload)
            if self._owed >= _ACKNOWLEDGED_BYTES:
                self.send(f.window_update(0, self._owed))
                self._owed = 0
        elif kind == f.WINDOW_UPDATE:
            (more,) = f.U32.unpack(payload)
            if stream:
                self._may_send_on[stream] = self._may_send_on.get(stream, self._first_window) + more
            else:
                self._may_send += more
        elif kind == f.SETTINGS and not flags & f.ACK:
            self._first_window = self._first_window or f.DEFAULT_WINDOW
            for at in range(0, len(payload), f.SETTING.size):
                key, value = f.SETTING.unpack_from(payload, at)
                if key == f.INITIAL_WINDOW_SIZE:
                    self._first_window = value
            self.send(f.SETTINGS_ACK)
        elif kind == f.PING and not flags & f.ACK:
            self.send(f.ping(payload, ack=True))
        elif kind == f.GOAWAY:
            self.goaway = payload
        status = "reset" if kind == f.RST_STREAM else ""
        if kind == f.HEADERS and self._statuses:  # the server sends no longer ones, so no CONTINUATION
            assert flags & f.END_HEADERS
            status = dict(self._decoder.decode(payload)).get("grpc-status", "")
        if kind == f.RST_STREAM or (kind in (f.DATA, f.HEADERS) and flags & f.END_STREAM):
            self.ended[stream] = status
            self._may_send_on.pop(stream, None)

    def read_until_ended(self, *streams: int) -> None:
        """Take what comes until these streams have ended. Fails if the connection ends before."""
        while not all(stream in self.ended for stream in streams):
            assert self.read(), f"the server closed the connection: {self.goaway!r}"

    def read_until_received(self, size: int) -> None:
        """Take what comes until so many octets of DATA have come in all."""
        while sum(self.received.values()) < size:
            assert self.read(), f"the server closed the connection: {self.goaway!r}"

    def read_to_the_end(self) -> None:
        """Take what comes until the server closes, or says nothing for a second."""
        self.socket.settimeout(1.0)
        with contextlib.suppress(OSError):
            while self.read():
                pass

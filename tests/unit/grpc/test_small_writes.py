"""Small writes of a connection go to the kernel at once; the transport keeps what that does not take."""

from __future__ import annotations

import socket
from types import SimpleNamespace

from proxy.grpc.registry import Registry
from proxy.http.http2 import frames as f
from proxy.http.http2.outbound import PUMP_BYTES
from proxy.listener.connection import ClientConnection
from proxy.listener.server import Limits
from tests.unit.grpc.calls.talking import Talk, message
from tests.unit.http2.client import parse


class Transport:
    """What a connection's own transport would do: keep, until somebody reads."""

    def __init__(self, sock: socket.socket | None) -> None:
        self.sock = sock
        self.kept = b""
        self.closing = False

    def get_extra_info(self, name: str, default: object = None) -> object:
        return {"socket": self.sock}.get(name, default)

    def set_write_buffer_limits(self, high: int, low: int) -> None: ...
    def get_write_buffer_size(self) -> int:
        return len(self.kept)

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: bytes) -> None:
        self.kept += data


def connection(transport: Transport) -> ClientConnection:
    server = SimpleNamespace(
        loop=SimpleNamespace(time=lambda: 0.0), limits=Limits(), opened=lambda front: None)
    front = ClientConnection(server, Registry())  # type: ignore[arg-type]
    front.connection_made(transport)  # type: ignore[arg-type]
    return front


def test_small_writes_go_to_the_kernel_until_it_takes_no_more_and_nothing_is_lost_or_overtaken() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        transport = Transport(ours)
        front = connection(transport)
        pieces = [bytes([i % 256]) * (i % 700 + 1) for i in range(3000)]
        for piece in pieces:
            front._send(piece)
        assert transport.kept  # more than a socket holds
        received, whole = b"", b"".join(pieces)
        while len(received) < len(whole) - len(transport.kept):
            received += theirs.recv(1 << 20)
        assert received
        assert received + transport.kept == whole
        transport.kept = b""  # it has sent what it kept
        front._send(b"next")
        assert (theirs.recv(10), transport.kept) == (b"next", b"")


def test_what_the_kernel_refuses_and_what_is_large_is_the_transports() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        transport = Transport(ours)
        front = connection(transport)
        theirs.close()
        front._send(b"broken")
        assert transport.kept == b"broken"
        for sock, data, closing in (
            (ours, bytes(1 << 20), False), (None, b"tls or a test", False), (ours, b"closing", True),
        ):  # fmt: skip
            transport = Transport(sock)
            transport.closing = closing
            connection(transport)._send(data)
            assert transport.kept == data


def test_windows_of_one_octet_make_few_frames_in_a_turn() -> None:
    """One SETTINGS frame made a frame of each answer that waited: 100,000 held the loop for seconds."""
    talk, count = Talk(), 3000
    talk.server.receive(f.settings_frame({f.INITIAL_WINDOW_SIZE: 0}), 100.0)
    for stream_id in range(1, 2 * count, 2):
        talk.headers(stream_id, path="/a.B/Park")
        talk.data(stream_id, message(b""))
    for call in talk.parked:
        call.reply(b"later")
    talk.take()
    transport, again = Transport(None), list[ClientConnection]()
    front = connection(transport)
    front.http2 = talk.server
    front.server.sent_bytes = 0
    front.server.schedule = again.append  # type: ignore[method-assign]
    talk.server.receive(f.settings_frame({f.INITIAL_WINDOW_SIZE: 1}), 100.0)
    front.flush()
    assert [frame.kind for frame in parse(transport.kept)].count(f.DATA) <= 2 * PUMP_BYTES / 1024 + 2
    while again:
        again.pop().flush()
    assert [frame.kind for frame in parse(transport.kept)].count(f.DATA) == count

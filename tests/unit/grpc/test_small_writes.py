"""Small writes of a connection go to the kernel at once; the transport keeps what that does not take."""

from __future__ import annotations

import socket
from types import SimpleNamespace

from proxy.grpc.registry import Registry
from proxy.listener.connection import ClientConnection
from proxy.listener.server import Limits


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

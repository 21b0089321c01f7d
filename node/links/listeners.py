"""The peer ports of a node that listens at several addresses (``--listen-peer-urls``), as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cluster.machine import FrameSocket, Receive

Listen = Callable[[str, Receive, Callable[[bytes], None]], FrameSocket]  # endpoint, receive, gone


class Listeners:
    """A :class:`cluster.machine.FrameSocket` over several. A link belongs to the socket it came by."""

    trouble = ""

    def __init__(
        self, listen: Listen, endpoints: Sequence[str], receive: Receive, gone: Callable[[bytes], None]
    ) -> None:
        self.dropped = 0
        self._receive, self._gone = receive, gone
        self._at: dict[bytes, int] = {}  # identity -> which of the sockets
        self._sockets = [self._open(listen, endpoint, at) for at, endpoint in enumerate(endpoints)]

    def _open(self, listen: Listen, endpoint: str, at: int) -> FrameSocket:
        def came(parts: list[bytes]) -> None:
            self._at[parts[0]] = at
            self._receive(parts)

        def gone(identity: bytes) -> None:
            if self._at.get(identity) == at:  # else it has come again, by another address
                del self._at[identity]
                self._gone(identity)

        return listen(endpoint, came, gone)

    def _socket(self, identity: bytes) -> FrameSocket | None:
        at = self._at.get(identity)
        return None if at is None else self._sockets[at]

    def send(self, parts: list[bytes]) -> bool:
        socket = self._socket(parts[0])
        sent = socket is not None and socket.send(parts)
        self.dropped += not sent
        return sent

    def stands(self) -> bool:
        return True  # it dials nothing

    def hint(self) -> str:
        return ""

    def trust(self, identity: bytes) -> None:
        if (socket := self._socket(identity)) is not None:
            socket.trust(identity)

    def drop(self, identity: bytes, reason: str) -> None:
        if (socket := self._socket(identity)) is not None:
            socket.drop(identity, reason)

    def address(self, identity: bytes) -> str:
        socket = self._socket(identity)
        return "" if socket is None else socket.address(identity)

    def close(self) -> None:
        for socket in self._sockets:
            socket.close()

"""The socket of a connection, as the connection sees it. Its client takes what was written when it likes."""

from __future__ import annotations

from typing import Any

from proxy.listener.connection import ClientConnection
from tests.unit.proxy.random.world import TimedLoop

_HIGH_BYTES = 65_536


class Socket:
    def __init__(self, loop: TimedLoop, connection: ClientConnection, peer: tuple[str, int]) -> None:
        self._loop = loop
        self._connection = connection
        self._peer = peer
        self._high, self._low = _HIGH_BYTES, _HIGH_BYTES >> 2
        self._full = False
        self.reading = True
        self.closing = self.lost = False
        self.untaken = 0
        self.written = bytearray()

    # -- the client's side

    def take(self, size: int) -> None:
        """The client reads so much."""
        if self.lost:
            return
        self.untaken = max(self.untaken - size, 0)
        if self._full and self.untaken <= self._low:
            self._full = False
            self._connection.resume_writing()
        if self.closing and not self.untaken:
            self.lose()

    def lose(self) -> None:
        if not self.lost:
            self.lost = self.closing = True
            self._connection.connection_lost(None)

    # -- the connection's side, as asyncio's transports

    def write(self, data: bytes) -> None:
        assert not self.lost, "written to a lost connection"
        if self.closing:
            return
        self.untaken += len(data)
        self.written += data
        if self.untaken > self._high and not self._full:
            self._full = True
            self._connection.pause_writing()

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            if not self.untaken:
                self._loop.call_soon(self.lose)

    def abort(self) -> None:
        self.closing, self.untaken = True, 0
        self._loop.call_soon(self.lose)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = _HIGH_BYTES if high is None else high
        self._low = self._high >> 2 if low is None else low

    def get_write_buffer_size(self) -> int:
        return self.untaken

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._peer if name == "peername" else default

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None: ...

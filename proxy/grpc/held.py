"""Requests of a stream that wait for what is before them. Its client is asked for no more than some bytes."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from cluster import errors
from cluster.errors import EtcdError

# of requests that wait: beyond so many the client is not asked for more. Beyond the others its stream ends:
# only compressed or very large requests, or JSON, bring so much unasked
_PAUSE_BYTES, _MOST_BYTES = 65_536, 2 << 20
_EACH = 5  # bytes that one takes in a window besides its own


class Paused(Protocol):
    """A call, as its requests need it."""

    def pause(self) -> None: ...
    def read_on(self) -> None: ...


class Held:
    """Those of one stream. It does not refer to its call, which refers to it."""

    __slots__ = ("_bytes", "_requests")

    def __init__(self) -> None:
        self._requests: deque[bytes] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, call: Paused, data: bytes) -> None:
        """EtcdError: too many wait."""
        self._bytes += len(data) + _EACH
        if self._bytes > _MOST_BYTES:
            raise EtcdError(errors.TOO_MANY_REQUESTS)
        self._requests.append(data)
        if self._bytes > _PAUSE_BYTES:
            call.pause()

    def take(self, call: Paused, most: int) -> list[bytes]:
        """The first ones, in order."""
        some = [self._requests.popleft() for _ in range(min(len(self._requests), most))]
        self._bytes -= sum(map(len, some)) + _EACH * len(some)
        if self._bytes <= _PAUSE_BYTES:
            call.read_on()
        return some

    def clear(self) -> None:
        self._requests.clear()

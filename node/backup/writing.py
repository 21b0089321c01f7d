"""Where the bytes of a backup go: gathered into larger pieces, and counted, so that another process can go
on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

Write = Callable[[bytes], object]
Alive = Iterator[None]  # asked again and again; it ends the process once no client wants the backup
_PIECE_BYTES = 128 << 10


class Gathered:
    """Passes on what is written in pieces of 128 KB, the rest with :meth:`flush`."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        if self._size >= _PIECE_BYTES:
            self.flush()

    def flush(self) -> None:
        parts, self._parts, self._size = self._parts, [], 0
        if parts:
            self._write(b"".join(parts))


class Passed:
    """A descriptor that one process after the other writes the same bytes to."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size_bytes = 0  # that have been written
        self.broken = False  # nobody reads

    def write(self, data: bytes) -> None:
        """OSError: nobody reads it."""
        left = memoryview(data)
        while left:
            try:
                written = os.write(self._descriptor, left)
            except OSError:
                self.broken = True
                raise
            self.size_bytes += written
            left = left[written:]

    def from_the_beginning(self) -> Write:
        """What passes over as many bytes as have been written before."""
        over = self.size_bytes

        def write(data: bytes) -> None:
            nonlocal over
            passed = min(over, len(data))
            over -= passed
            self.write(data[passed:])

        return write

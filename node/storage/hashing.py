"""Hashes of a replica's state, in slices of one pinned revision.

``hash_kv`` covers every version with mod_revision <= the hash revision; of those at or below the compaction
revision only what a compaction would keep (contract 5), so replicas agree however far each has removed. The
order is by key, then newest first; CRC-32 as zlib's. ``hash_state`` adds leases, members and the position:
equal order index, equal hash (I19).
"""

from __future__ import annotations

import time
import zlib
from typing import TYPE_CHECKING

from node.storage.errors import raise_read
from node.storage.keys import KEYS_END, LOCAL_PREFIX, MAX64

if TYPE_CHECKING:
    from node.storage.state import StateStore

_TIME_CHECK = 64


class StateHash:
    """A hash being computed: call :meth:`step` until it returns True, then read :attr:`value`."""

    def __init__(self, store: StateStore, revision: int, *, whole_state: bool) -> None:
        self.revision = revision
        self.compact_revision = store.compact_revision
        self.finished = False
        self.value = zlib.crc32(b"state" if whole_state else b"key")
        self._path = store.path
        self._last: bytes | None = None  # the key (escaped) whose newest kept version is behind us
        self._whole_state = whole_state
        # One iterator for all, made now: it shows this moment for as long as it lives.
        self._iterator = store.database.iter()
        self._iterator.seek(b"k")

    def step(self, budget_us: int) -> bool:
        """One slice. True: finished."""
        if self.finished:
            return True
        try:
            return self._step(time.perf_counter_ns() + budget_us * 1000)
        except Exception as e:
            raise_read(e, self._path, "hashing")

    def run(self) -> int:
        """The whole hash at once."""
        while not self.step(1_000_000):
            pass
        return self.value

    def _step(self, deadline: int) -> bool:
        it, value, last = self._iterator, self.value, self._last
        newest = (MAX64 - self.revision).to_bytes(8, "big")
        compacted = (MAX64 - self.compact_revision).to_bytes(8, "big")
        rows = 0
        while it.valid():
            row = it.key()
            if row >= KEYS_END:
                break
            inverted = row[-13:-5]
            if inverted >= newest:
                if inverted < compacted:
                    value = zlib.crc32(it.value(), zlib.crc32(row, value))
                elif row[:-15] != last:
                    last = row[:-15]
                    if not row[-1]:
                        value = zlib.crc32(it.value(), zlib.crc32(row, value))
            it.next()
            rows += 1
            if rows % _TIME_CHECK == 0 and time.perf_counter_ns() >= deadline:
                self.value, self._last = value, last
                return False
        if not it.valid():
            it.status()
        if self._whole_state:
            value = self._rest(value)
        self.value = value
        self.finished = True
        return True

    def _rest(self, value: int) -> int:
        # `l` rows are left out: they follow from the keys, and stale ones go at different times.
        for lower, upper in ((b"L", b"M"), (b"m", b"n")):
            it = self._iterator
            it.seek(lower)
            while it.valid():
                row = it.key()
                if row >= upper:
                    break
                if not row.startswith(LOCAL_PREFIX):
                    value = zlib.crc32(it.value(), zlib.crc32(row, value))
                it.next()
            if not it.valid():
                it.status()
        return value

"""Hashes of a replica's state, in slices of one pinned moment; CRC-32 as zlib's, by key, then newest first.

``hash_kv`` covers every version with mod_revision <= the hash revision; of those at or below the compaction
revision only what a compaction would keep (contract 5), so replicas agree however far each has removed.
``hash_state`` adds all else that is applied: equal order index, equal hash (I19). ``hash_written``
(Maintenance.Hash) covers what requests have made of the store: neither the position, which an election moves,
nor what replicas note of each other, so a restart does not change it.

A row of a key that left its lease counts nowhere: compactions remove it at a time of their own. Of keys that
have moved a version counts in the shard that owned the key at max(its revision, the compaction): G6.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from enum import Enum

from node.storage.keys import (
    ALARM_PREFIX,
    FEATURE_PREFIX,
    HOST_PREFIX,
    KEYS_END,
    LEASE_KEY,
    LEASE_VALUE,
    LOCAL_PREFIX,
    MAX64,
    MEMBER_PREFIX,
    lease_named,
    unescape,
)
from node.storage.state.slices.walk import FIND_CHECK, TIME_CHECK, Walk
from node.storage.state.versions import Versions


class Covers(Enum):
    KEYS = b"key"
    WRITTEN = b"written"
    STATE = b"state"


class StateHash(Walk):
    """A hash being computed; then :attr:`value` is there."""

    def __init__(self, store: Versions, revision: int, covers: Covers) -> None:
        self.revision = revision
        self.compact_revision = store.compact_revision
        self.value = zlib.crc32(covers.value)
        self._covers = covers
        self._owned = store.owned
        # Made now: they show this moment for as long as they live.
        self._iterator = store.database.iter()
        self._versions = store.database.iter()
        super().__init__(store.path, store.clock_ns, "hashing", self._all())

    def run(self) -> int:
        while not self.step(1_000_000):
            pass
        return self.value

    def _all(self) -> Iterator[None]:
        yield from self._keys()
        if self._covers is Covers.STATE:
            yield from self._plain(b"L", b"M")
            yield from self._attachments()
            yield from self._plain(b"m", b"n")
        elif self._covers is Covers.WRITTEN:
            self.value = zlib.crc32(b"%d %d" % (self.revision, self.compact_revision), self.value)
            yield from self._leases()
            yield from self._attachments()
            for prefix in (ALARM_PREFIX, HOST_PREFIX, MEMBER_PREFIX, FEATURE_PREFIX):
                yield from self._plain(prefix, prefix[:-1] + bytes((prefix[-1] + 1,)))

    def _keys(self) -> Iterator[None]:
        it, value = self._iterator, self.value
        newest = (MAX64 - self.revision).to_bytes(8, "big")
        compacted = (MAX64 - self.compact_revision).to_bytes(8, "big")
        last: bytes | None = None  # the key (escaped) whose newest kept version is behind us
        rows = 0
        it.seek(b"k")
        while it.valid():
            row = it.key()
            if row >= KEYS_END:
                break
            inverted = row[-13:-5]
            if inverted >= newest:
                if inverted < compacted:
                    if self._owned is None or self._counts(row):
                        value = zlib.crc32(it.value(), zlib.crc32(row, value))
                elif row[:-15] != last:
                    last = row[:-15]
                    if not row[-1] and (self._owned is None or self._counts(row)):
                        value = zlib.crc32(it.value(), zlib.crc32(row, value))
            it.next()
            rows += 1
            if rows % TIME_CHECK == 0:
                yield
        if not it.valid():
            it.status()
        self.value = value

    def _counts(self, row: bytes) -> bool:
        assert self._owned is not None
        revision = max(MAX64 - int.from_bytes(row[-13:-5], "big"), self.compact_revision)
        return self._owned.shows(unescape(row[1:-15]), revision)

    def _between(self, lower: bytes, upper: bytes, check: int) -> Iterator[bytes | None]:
        """The row keys in ``[lower, upper)``, the iterator at each; None where the clock is due."""
        it = self._iterator
        rows = 0
        it.seek(lower)
        while it.valid():
            row = it.key()
            if row >= upper:
                return
            yield row
            it.next()
            rows += 1
            if rows % check == 0:
                yield None
        it.status()

    def _plain(self, lower: bytes, upper: bytes) -> Iterator[None]:
        for row in self._between(lower, upper, TIME_CHECK):
            if row is None:
                yield
            elif not row.startswith(LOCAL_PREFIX):
                self.value = zlib.crc32(self._iterator.value(), zlib.crc32(row, self.value))

    def _leases(self) -> Iterator[None]:
        """With the granted time, not a sequencer's checkpoints."""
        for row in self._between(b"L", b"M", TIME_CHECK):
            if row is None:
                yield
            else:
                ttl, _ = LEASE_VALUE.unpack(self._iterator.value())
                self.value = zlib.crc32(b"%d" % ttl, zlib.crc32(row, self.value))

    def _attachments(self) -> Iterator[None]:
        for row in self._between(b"l", b"m", FIND_CHECK):
            if row is None:
                yield
            elif (
                lease_named(self._versions, row[LEASE_KEY.size :], self.revision)
                == LEASE_KEY.unpack_from(row)[1]
                and (self._owned is None or self._owned.shows(row[LEASE_KEY.size :]))
            ):
                self.value = zlib.crc32(row, self.value)

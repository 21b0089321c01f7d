"""Do keys and their leases agree? Looked at in slices, at one moment of the applied state.

Only an ``l`` row makes a key end with its lease, and neither hashes of keys nor reads meet these rows. So
both sides are walked: the newest version of every key needs its lease and its ``l`` row; every ``l`` row
needs some version of its key that names its lease, not always the newest (see ``stale_rows``). A row may be
of a lease that has ended, while old versions name it: older releases restored backups so.

Nothing is mended here: a replica that lost a row cannot know what else it lost.

Cost: 2 us of CPU a key, 6 us more for one on a lease with its row; no slice of 200 us took 1 ms.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator, Iterator
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from rocksdict import RdictIter

from node.storage.keys import KEYS_END, LEASE_KEY, MAX64, escape, parse_current, unescape
from node.storage.options import UNCACHED
from node.storage.state.slices.walk import FIND_CHECK, TIME_CHECK, Walk

if TYPE_CHECKING:
    from node.storage.state.store import StateStore

SLICE_US = 200
_EXAMPLES = 10  # mismatches that are kept; the others are counted
_ENOUGH = 1000  # the check ends with so many
_NOT_FOUND = "key not found"  # rocksdict's text


class Fault(Enum):
    NOT_ATTACHED = "the key names the lease, but does not hang on it: it would outlive it"
    NO_LEASE = "the key names a lease that is not there"
    ROW_WITHOUT_VERSION = "a row says that the key hangs on the lease, but no version of it names it"


class Mismatch(NamedTuple):
    fault: Fault
    lease: int
    key: bytes


class LeaseCheck(Walk):
    """A check under way; then :attr:`mismatches` is whole."""

    def __init__(self, store: StateStore) -> None:
        self.position = store.position
        self.keys = self.attached = self.rows = 0  # looked at: live keys, keys with a lease, ``l`` rows
        self.stale = 0  # rows whose keys have left their lease
        self.mismatches = 0  # the check ends after a thousand or so
        self.examples: list[Mismatch] = []  # the first ones
        self._owned = store.owned
        self._moment = store.database.snapshot()
        self._walked, self._versions = self._moment.iter(UNCACHED), self._moment.iter(UNCACHED)
        self._known = (0, False)  # a lease, and whether it is there: neighbours ask for the same one
        super().__init__(store.path, time.perf_counter_ns, "checking leases", self._all())

    def _all(self) -> Iterator[None]:
        for _ in itertools.chain(self._check_keys(), self._check_rows()):
            if self.mismatches >= _ENOUGH:
                return
            yield

    def _mismatch(self, fault: Fault, lease: int, key: bytes) -> None:
        self.mismatches += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(Mismatch(fault, lease, key))

    def _is_there(self, row: bytes) -> bool:
        try:  # a search would run over all rows that were deleted behind it
            self._moment[row]
        except Exception as e:
            if _NOT_FOUND in str(e):  # RocksDB's own errors have other texts
                return False
            raise
        return True

    def _is_granted(self, lease: int) -> bool:
        if self._known[0] != lease or not lease:
            self._known = (lease, self._is_there(LEASE_KEY.pack(b"L", lease)))
        return self._known[1]

    def _check_keys(self) -> Iterator[None]:
        it = self._walked
        newest = (MAX64 - self.position.revision).to_bytes(8, "big")
        last = b""  # the key (escaped) whose newest version is behind us
        cost = 0
        it.seek(b"k")
        while it.valid():
            row = it.key()
            if row >= KEYS_END:
                return
            # rows above the position are of an apply that is under way, or was when the host stopped
            if row[-13:-5] >= newest and (escaped := row[1:-15]) != last:
                last = escaped
                key = unescape(escaped)
                if not row[-1] and (self._owned is None or self._owned.shows(key)):
                    self.keys += 1
                    lease = parse_current(it.value(), len(key)).lease
                    if lease:
                        self._check_key(key, lease)
                        cost += TIME_CHECK // FIND_CHECK
            it.next()
            cost += 1
            if cost >= TIME_CHECK:
                cost = 0
                yield
        it.status()

    def _check_key(self, key: bytes, lease: int) -> None:
        self.attached += 1
        if not self._is_granted(lease):
            self._mismatch(Fault.NO_LEASE, lease, key)
        elif not self._is_there(LEASE_KEY.pack(b"l", lease) + key):
            self._mismatch(Fault.NOT_ATTACHED, lease, key)

    def _check_rows(self) -> Iterator[None]:
        it = self._walked
        cost = 0
        it.seek(b"l")
        while it.valid():
            row = it.key()
            if row >= b"m":
                return
            self.rows += 1
            lease, key = LEASE_KEY.unpack_from(row)[1], row[LEASE_KEY.size :]
            if self._owned is not None and not self._owned.shows(key):
                pass  # G6: it counts in another shard
            else:
                for version, named in enumerate(_leases_of(self._versions, key), 1):
                    if named == lease:
                        self.stale += version > 1
                        break
                    if version % TIME_CHECK == 0:
                        yield
                else:
                    self._mismatch(Fault.ROW_WITHOUT_VERSION, lease, key)
            it.next()
            cost += 1
            if cost >= FIND_CHECK:
                cost = 0
                yield
        it.status()


def _leases_of(versions: RdictIter, key: bytes) -> Iterator[int]:
    """The lease that each version of a key names, the newest first; 0: none."""
    prefix = b"k" + escape(key) + b"\0\0"
    versions.seek(prefix)
    while versions.valid():
        row = versions.key()
        if not row.startswith(prefix):
            return
        yield 0 if row[-1] else parse_current(versions.value(), len(key)).lease
        versions.next()
    versions.status()


def check_leases(store: StateStore, budget_us: int = SLICE_US) -> Generator[None, None, LeaseCheck]:
    """The whole check, of this moment, a slice at a time, or until a snapshot takes the store's place. Raises
    StorageCorruption."""
    check, path = LeaseCheck(store), store.path
    while store.path == path and not check.step(budget_us):
        yield
    return check

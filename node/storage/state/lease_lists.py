"""The keys on leases of very many keys, listed in slices before one turn needs them all.

A key costs 13 us from the disk. A list is made in slices, and follows what is applied since: from time to
time while it is made, and when it is asked for. So the turn that ends a lease looks at few changes, and takes
the rest as it stands. A list costs about a hundred bytes a key.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import islice
from typing import Protocol

from cluster.grain import GRAIN
from node.storage.keys import DELETE

MOST_BYTES = 256 << 20  # of all lists; the newest one may be larger
_KEY_BYTES = 64  # a key's, besides its own
_PASSES = 8  # over what has changed during the one before
_SECONDS = 30  # that a list is kept after its last use


class LeasedKeys(Protocol):
    """What is applied, as the lists see it."""

    @property
    def revision(self) -> int: ...

    def attachment_rows(self, lease: int) -> Iterator[bytes]: ...

    def hangs(self, key: bytes, lease: int) -> bool: ...

    def changes(self, from_revision: int) -> Iterator[tuple[int, int, int, bytes]]: ...


class LeaseList:
    __slots__ = ("age", "bytes", "changed", "found", "gone", "lease", "revision", "void")

    def __init__(self, lease: int, revision: int) -> None:
        self.lease = lease
        self.revision = revision  # changes up to it are looked at
        self.found: list[bytes] = []  # in order
        # keys of which that is not true any more: whether they hang on the lease now
        self.changed: dict[bytes, bool] = {}
        self.bytes = self.age = 0
        self.void = False  # it misses what has changed since it was begun
        self.gone = False  # its lease has ended

    def note(self, key: bytes, hangs: bool) -> None:
        found = self.found
        at = bisect_left(found, key)
        if hangs == (at < len(found) and found[at] == key):
            if self.changed.pop(key, None) is not None:
                self.bytes -= len(key) + _KEY_BYTES
        else:
            if key not in self.changed:
                self.bytes += len(key) + _KEY_BYTES
            self.changed[key] = hangs

    def keys(self) -> list[bytes]:
        """Those that hang on the lease, in order."""
        self.age = 0
        if not self.changed:
            return self.found[:]
        changed = self.changed
        keys = [key for key in self.found if key not in changed]
        keys += [key for key, hangs in changed.items() if hangs]
        keys.sort()
        return keys


class LeaseLists:
    def __init__(self, store: LeasedKeys) -> None:
        self._store = store
        self._lists: dict[int, LeaseList] = {}  # the oldest first
        self._begun: list[LeaseList] = []  # being made, or followed in steps

    def __contains__(self, lease: int) -> bool:
        return lease in self._lists

    @property
    def full(self) -> bool:
        return sum([one.bytes for one in {*self._lists.values(), *self._begun}]) > MOST_BYTES

    def read(self, lease: int, step: int) -> Iterator[None]:
        """List a lease's keys, or let its list follow; pauses after ``step`` looks."""
        while True:
            known = self._lists.get(lease)
            one = LeaseList(lease, self._store.revision) if known is None else known
            one.age = 0
            self._begun.append(one)
            try:
                yield from self._make(one, step) if known is None else self._follow(one, step)
            finally:
                self._begun.remove(one)
            if one.gone:
                return
            if not one.void:
                break
        self._lists.pop(lease, None)
        self._lists[lease] = one
        while len(self._lists) > 1 and self.full:
            del self._lists[next(iter(self._lists))]

    def keys(self, lease: int) -> list[bytes] | None:
        """The keys on a lease now, in order; None: they are not listed."""
        one = self._lists.get(lease)
        if one is None:
            return None
        self._follow_now(one)
        return one.keys()

    def drop(self, lease: int) -> None:
        """A lease has ended."""
        self._lists.pop(lease, None)
        for one in self._begun:
            if one.lease == lease:
                one.void = one.gone = True

    def forget(self) -> None:
        """Nobody asks for them here. Those that are being made go on as long as they are read."""
        self._lists.clear()

    def other_keys(self) -> None:
        """Keys have come or gone that nothing has changed."""
        for one in (*self._lists.values(), *self._begun):
            one.void = True
        self._lists.clear()

    def second(self) -> None:
        for one in list(self._lists.values()):
            one.age += 1
            if one.age > _SECONDS:
                del self._lists[one.lease]

    def changes_go(self, below: int) -> None:
        """Changes below a revision cannot be read any more from now on. A list that lacks very many of them
        is not worth a turn: it is made again when it is asked for."""
        few = GRAIN.lease_changes
        for one in list(self._lists.values()):
            if one.revision + 1 < below and sum(1 for _ in islice(self._changes(one), few + 1)) > few:
                one.void = True
                del self._lists[one.lease]
        for one in self._begun:  # begun anew they might never be whole
            if one.revision + 1 < below and not one.void:
                self._follow_now(one)

    def _make(self, one: LeaseList, step: int) -> Iterator[None]:
        store, lease, found = self._store, one.lease, one.found
        for at, row in enumerate(store.attachment_rows(lease), 1):
            key = row[9:]
            if store.hangs(key, lease):
                found.append(key)
                one.bytes += len(key) + _KEY_BYTES
            if at % step == 0:
                yield
                if one.void:
                    return
            if at % GRAIN.lease_changes == 0:
                yield from self._follow(one, step)
        yield from self._follow(one, step)

    def _follow(self, one: LeaseList, step: int) -> Iterator[None]:
        """Look at what has changed, until few changes are left."""
        for _ in range(_PASSES):
            looked = 0
            for looked, _ in enumerate(self._changes(one), 1):
                if looked % step == 0:
                    yield
                    if one.void:
                        return
            if looked < GRAIN.lease_changes:
                return

    def _follow_now(self, one: LeaseList) -> None:
        for _ in self._changes(one):
            pass

    def _changes(self, one: LeaseList) -> Iterator[None]:
        """Look at what has changed up to now, with a stop behind each change."""
        store, upto = self._store, self._store.revision
        if one.revision < upto:
            for revision, _, kind, key in store.changes(one.revision + 1):
                # what was deleted is gone, unless another look has passed a later change
                gone = kind == DELETE and revision > one.revision
                one.note(key, not gone and store.hangs(key, one.lease))
                yield
            one.revision = max(one.revision, upto)  # another may have looked meanwhile

"""The speculative state: what is applied, and over it what a leader has logged that is not applied yet."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Protocol

from cluster.evaluate.reading.rows import merged
from cluster.evaluate.spans import Intervals, Span, keys_in
from cluster.evaluate.view import Current, Outcome, Version
from cluster.features.auth.permissions import Ranges

LOOK = 1000  # rows passed over between two pauses
_FEW = 64  # one part of the keys in so many is put in its place; more are sorted with the rest


class Pinned(Protocol):
    """The applied state of one moment, for as long as it is held."""

    def scan(
        self, start: bytes, end: bytes, look: int = 0, revision: int = 0
    ) -> Iterator[tuple[bytes, bytes]]: ...


class AppliedState(Protocol):
    """What the leader reads of the applied state (``node.storage.StateStore``, or a model in tests)."""

    @property
    def revision(self) -> int: ...
    @property
    def compact_revision(self) -> int: ...
    def current(self, key: bytes) -> Current | None: ...
    def get(self, key: bytes, revision: int = 0) -> bytes | None: ...
    def scan(
        self, start: bytes, end: bytes, revision: int = 0, look: int = 0
    ) -> Iterator[tuple[bytes, bytes]]: ...
    def reader(self, revision: int = 0) -> Pinned: ...
    def live_count(self, start: bytes, end: bytes) -> int: ...
    def changes(self, from_revision: int) -> Iterator[tuple[int, int, int, bytes]]: ...
    def lease(self, lease: int) -> tuple[int, int] | None: ...
    def meta(self, name: str) -> bytes | None: ...
    def alarms(self) -> list[tuple[int, int]]: ...
    def lease_keys(self, lease: int, limit: int = 0, *, but: Ranges | None = None) -> list[bytes]: ...


class NotYet(Exception):
    """The request reads at a revision that is logged and not applied: ask again once it is."""

    def __init__(self, revision: int) -> None:
        super().__init__(revision)
        self.revision = revision


class _Hung:
    """Keys that pending writes hang on a lease, as they came. Some may have left it again, or come twice."""

    __slots__ = ("_applied", "_passed", "keys")

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self._applied = 0  # of those that came
        # how many of those that came are passed over for ever: within these ranges, or off the lease. One
        # that comes back to it comes anew
        self._passed: dict[Ranges, int] = {}

    def outside(self, but: Ranges, limit: int, hangs: Callable[[bytes], bool]) -> set[bytes]:
        """Those that hang and are not within ``but``; of these at most ``limit`` (0: all). Each is looked at
        once, up to the first one that is found."""
        keys, applied, found = self.keys, self._applied, set[bytes]()
        passed = max(self._passed.get(but, 0) - applied, 0)
        for at in range(passed, len(keys)):
            key = keys[at]
            if but.behind(key) == key and hangs(key):
                found.add(key)
                if len(found) == limit:
                    break
            elif not found:
                passed = at + 1
        self._passed[but] = applied + passed
        return found

    def drop(self, count: int) -> bool:
        """So many of the first ones are applied. Whether any are left."""
        self._applied += count
        del self.keys[:count]
        self._passed = {but: passed for but, passed in self._passed.items() if passed > self._applied}
        return bool(self.keys)


class Overlay:
    """A :class:`cluster.evaluate.view.View` of applied state and pending effects."""

    __slots__ = (
        "_asked", "_attached", "_gone", "_hung", "_keys", "_leases", "_ranges", "_store", "_writes", "batch",
        "compact_revision", "read", "revision",
    )

    def __init__(self, store: AppliedState) -> None:
        self._store = store
        # the last pending write of each key, with the batch that it belongs to
        self._writes: dict[bytes, tuple[int, Version | None]] = {}
        # of its keys, in order: all but the last ones, which came since a range was asked for
        self._keys: list[bytes] = []
        self._asked = False  # for a range, since a batch was applied
        # spans deleted whole, with their batch; what was pending in them is no longer in _writes, what is in
        # _writes came after them
        self._ranges: list[tuple[int, Span]] = []
        self._gone = Intervals()  # the same
        self._leases: dict[int, tuple[int, bool]] = {}  # pending grants (True) and revokes (False)
        # keys that pending writes hang on a lease
        self._hung: dict[int, _Hung] = {}
        self._attached: deque[tuple[int, int]] = deque()  # of each of these, in order: (batch, lease)
        self.batch = 1
        self.read = 0  # bytes of single keys' rows, as each was asked for
        self.revision = store.revision
        self.compact_revision = store.compact_revision

    @property
    def applied(self) -> AppliedState:
        return self._store

    def current(self, key: bytes) -> Current | Version | None:
        pending = self._writes.get(key)
        if pending is not None:
            return pending[1]
        if self._ranges and self._deleted(key):
            return None
        return self._store.current(key)

    def get(self, key: bytes) -> bytes | None:
        pending = self._writes.get(key)
        if pending is not None:
            return None if pending[1] is None else pending[1].kv
        return self._applied(key)

    def _applied(self, key: bytes) -> bytes | None:
        """The KeyValue of a key that nothing pending writes."""
        if self._ranges and self._deleted(key):
            return None
        if kv := self._store.get(key):
            self.read += len(kv)
        return kv

    def scan(self, start: bytes, end: bytes, revision: int = 0) -> Iterator[tuple[bytes, bytes]]:
        """With pauses. NotYet."""
        if revision and revision <= self._store.revision:
            # at the applied revision, too: the newest owners may be others than those of then (G6)
            return self._store.scan(start, end, revision, LOOK)
        if revision and revision < self.revision:
            raise NotYet(revision)
        writes, rows = self._writes, self._rows(start, end)
        if not (keys := self.written_in((start, end))):
            return rows
        versions = {key: writes[key][1] for key in keys}  # a batch may be applied before the scan has ended
        return merged(rows, keys, versions.__getitem__)

    def written_in(self, span: Span) -> Sequence[bytes]:
        """The keys of a span with pending writes, in order. Only those are sorted that came since it was last
        asked."""
        writes, keys = self._writes, self._keys
        if not writes:
            return ()
        self._asked = True
        if fresh := len(writes) - len(keys):
            came = islice(reversed(writes), fresh)
            if fresh * _FEW < len(keys):
                for key in came:
                    insort(keys, key)
            else:
                keys += came
                keys.sort()
        return keys_in(keys, span)

    def changing(self, span: Span) -> Sequence[bytes] | None:
        """The keys of a span with pending writes; None if a pending delete of a range meets it."""
        if self._ranges and self._gone.meets(span):
            return None
        return self.written_in(span)

    def written_since(self, batch: int) -> Iterator[bytes]:
        """The keys with pending writes of ``batch`` and later ones."""
        return (key for key, pending in self._writes.items() if pending[0] >= batch)

    def settled(self, around: Span | None, spans: Intervals) -> None:
        """NotYet: a delete of a range is pending that meets ``around`` or one of ``spans``."""
        if self._deletes(around, spans):
            raise NotYet(self.revision)

    def _deletes(self, around: Span | None, spans: Intervals) -> bool:
        gone = self._gone
        return bool(self._ranges) and ((around is not None and gone.meets(around)) or gone.meets_any(spans))

    def _deleted(self, key: bytes) -> bool:
        return key in self._gone

    def _rows(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        if not self._ranges:
            return self._store.scan(start, end, 0, LOOK)
        pieces = self._gone.without((start, end))
        return chain.from_iterable([self._store.scan(*piece, 0, LOOK) for piece in pieces])

    def count(self, start: bytes, end: bytes) -> int:
        store, span = self._store, (start, end)
        pieces = self._gone.without(span) if self._ranges else [span]
        found = sum([store.live_count(*piece) for piece in pieces])
        for key in self.written_in(span):
            found += self._writes[key][1] is not None
            found -= not self._deleted(key) and store.current(key) is not None
        return found

    def lease_exists(self, lease: int) -> bool:
        pending = self._leases.get(lease)
        return self._store.lease(lease) is not None if pending is None else pending[1]

    def changes_lease(self, lease: int) -> bool:
        """Whether a grant or a revoke of it is pending."""
        return lease in self._leases

    def lease_keys(self, lease: int, limit: int = 0, *, but: Ranges | None = None) -> list[bytes]:
        """``but``: those within may be left out, and of the others all beyond ``limit`` (0: none)."""
        writes, ranges = self._writes, self._ranges
        found = self._store.lease_keys(lease, limit, but=but)
        if not (writes or ranges):
            return found
        keys = self._left(found)
        while not keys and len(found) == limit > 0:  # what is pending has taken these from the lease
            limit *= 8
            found = self._store.lease_keys(lease, limit, but=but)
            keys = self._left(found)
        if (hung := self._hung.get(lease)) is not None:

            def hangs(key: bytes) -> bool:
                pending = writes.get(key)
                return pending is not None and pending[1] is not None and pending[1].lease == lease

            # as many steps as puts of the lease are pending, whatever else is
            keys += set(filter(hangs, hung.keys)) if but is None else hung.outside(but, limit, hangs)
        return sorted(keys)

    def _left(self, keys: list[bytes]) -> list[bytes]:
        """Of keys in the store those that nothing pending writes or deletes."""
        writes, ranges = self._writes, self._ranges
        return [key for key in keys if key not in writes and not (ranges and self._deleted(key))]

    def take(self, outcome: Outcome) -> None:
        """Take in what a request did; the next request sees it."""
        batch, writes = self.batch, self._writes
        for span in outcome.ranges:
            if gone := self.written_in(span):
                first = bisect_left(self._keys, gone[0])
                del self._keys[first : first + len(gone)]
                for key in gone:
                    del writes[key]
            self._ranges.append((batch, span))
            self._gone.add_span(span)
        for key, version in outcome.writes:
            writes[key] = (batch, version)
            if version is not None and version.lease:
                lease = version.lease
                if (hung := self._hung.get(lease)) is None:
                    hung = self._hung[lease] = _Hung()
                hung.keys.append(key)
                self._attached.append((batch, lease))
        if outcome.changed:
            self.revision += 1

    def take_put(self, key: bytes, version: Version) -> None:
        """As :meth:`take`, of one put."""
        self._writes[key] = self.batch, version
        self.revision = version[1]

    def set_lease(self, lease: int, granted: bool) -> None:
        """A pending grant or revoke."""
        self._leases[lease] = (self.batch, granted)

    def forget(self, batch: int, keys: Iterable[bytes], leases: Iterable[int]) -> None:
        """Drop what ``batch`` wrote, now that it is applied, unless a later batch wrote it again."""
        writes = self._writes
        for key in keys:
            pending = writes.get(key)
            if pending is not None and pending[0] <= batch:
                del writes[key]
        if self._keys:  # in order for as long as ranges are asked for
            self._keys = [key for key in self._keys if key in writes] if self._asked else []
        self._asked = False
        if self._ranges and self._ranges[0][0] <= batch:
            self._ranges = [deleted for deleted in self._ranges if deleted[0] > batch]
            self._gone = Intervals()
            for _, span in self._ranges:
                self._gone.add_span(span)
        attached = self._attached
        applied: dict[int, int] = {}
        while attached and attached[0][0] <= batch:
            lease = attached.popleft()[1]
            applied[lease] = applied.get(lease, 0) + 1
        for lease, count in applied.items():
            if not self._hung[lease].drop(count):
                del self._hung[lease]
        for lease in leases:
            held = self._leases.get(lease)
            if held is not None and held[0] <= batch:
                del self._leases[lease]

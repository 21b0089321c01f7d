"""A shard leader's one lock table: first come, first served among conflicting entries (C5).

Entries are *prepares* (until the sequencer decides), requests that wait for something pending (H14), and
requests behind either. An entry is active once nothing before it conflicts with it; it keeps its place.

A prepare never waits, directly or through requests queued before it, for another attempt's undecided prepare:
it is refused, naming that attempt (H6, I12). So a granted lock waits for cuts only, and no cycle can form.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from cluster.evaluate.footprint import Footprint
from cluster.order.log import Attempt
from cluster.order.overlaps import Overlaps

P = TypeVar("P")


class Queued(Generic[P]):
    """A prepare (``attempt``) or a waiting request. ``payload`` is the owner's. ``key``: the one key that a
    request touches, and writes."""

    __slots__ = ("active", "attempt", "footprint", "key", "payload")

    def __init__(self, footprint: Footprint, payload: P, attempt: Attempt | None = None) -> None:
        self.footprint = footprint
        self.key = footprint.only_written if attempt is None else None
        self.payload = payload
        self.attempt = attempt
        self.active = False


class Refused(Exception):
    def __init__(self, holder: Attempt) -> None:
        super().__init__(holder)
        self.holder = holder


class LockTable(Generic[P]):
    def __init__(self) -> None:
        self._entries: dict[Queued[P], None] = {}
        self._attempts: dict[Attempt, Queued[P]] = {}
        self._overlaps = Overlaps()
        self._waiting = 0  # entries that are not active
        self._freed = False  # something was removed since they were looked at

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Queued[P]]:
        return iter(self._entries)

    @property
    def requests(self) -> bool:
        """Whether there is anything but prepares."""
        return len(self._attempts) < len(self._entries)

    def conflicts(self, footprint: Footprint) -> bool:
        return self._overlaps.meets(footprint)

    def locks(self, footprint: Footprint) -> bool:
        return self._overlaps.meets(footprint) and any(
            e.active and e.footprint.conflicts(footprint) for e in self._attempts.values())

    def wait(self, footprint: Footprint, payload: P, *, active: bool = False) -> Queued[P]:
        """Queue a request; ``active`` if it waits for what is pending rather than for an entry before it."""
        entry = Queued(footprint, payload)
        entry.active = active and not self.conflicts(footprint)
        self._add(entry)
        return entry

    def prepare(self, attempt: Attempt, footprint: Footprint, payload: P) -> Queued[P]:
        """Queue a prepare, active at once if nothing before it conflicts. Refused: see the module."""
        entry = Queued(footprint, payload, attempt)
        if self._overlaps.meets(footprint):
            holder = self._undecided_before(footprint)
            if holder is not None:
                raise Refused(holder)
            entry.active = not self.conflicts(footprint)
            self._check(entry)
        else:
            entry.active = True
        self._add(entry)
        self._attempts[attempt] = entry
        return entry

    def _add(self, entry: Queued[P]) -> None:
        self._entries[entry] = None
        self._overlaps.add(entry.footprint)
        self._waiting += not entry.active

    def _undecided_before(self, footprint: Footprint) -> Attempt | None:
        """The prepare that a newcomer would wait for, through whatever is queued."""
        blocked = Overlaps()
        blocked.add(footprint)
        for entry in reversed(self._entries):
            if blocked.meets(entry.footprint):
                if entry.attempt is not None:
                    return entry.attempt
                blocked.add(entry.footprint)
        return None

    def find(self, attempt: Attempt) -> Queued[P] | None:
        return self._attempts.get(attempt)

    def remove(self, entry: Queued[P]) -> None:
        assert entry.attempt is None, f"I11: the lock of {entry.attempt} does not end as a request does"
        self._remove(entry)

    def unlock(self, entry: Queued[P]) -> None:
        """A prepare is done with (I11: multi, release, a later sequencer's record), or refused ungranted."""
        self._remove(entry)

    def _remove(self, entry: Queued[P]) -> None:
        del self._entries[entry]
        self._freed = True
        self._overlaps.remove(entry.footprint)
        self._waiting -= not entry.active
        if entry.attempt is not None:
            del self._attempts[entry.attempt]

    def widen(self, entry: Queued[P], footprint: Footprint) -> None:
        self._overlaps.remove(entry.footprint)
        entry.footprint = footprint
        self._overlaps.add(footprint)
        self._freed = True

    def suspend(self, entry: Queued[P]) -> None:
        self._waiting += entry.active
        entry.active = False

    def in_order(self) -> Iterator[tuple[Queued[P], bool]]:
        """Each active entry, in order, and whether it is so from now on: nothing before it conflicts now.
        An entry that is removed before the next one is asked for holds back none behind it."""
        looks = self._freed and self._waiting > 0
        if looks or self.requests:
            yield from self._pass(looks)
        if self._freed and self._waiting and not looks:
            yield from self._pass(looks=True)
        self._freed = False

    def _pass(self, looks: bool) -> Iterator[tuple[Queued[P], bool]]:
        before = Overlaps()
        written: set[bytes] = set()  # keys of requests in it: later ones of such a key wait, and add nothing
        for entry in tuple(self._entries):
            if entry.key in written:
                continue
            fresh = looks and not entry.active and not before.meets(entry.footprint)
            if fresh:
                entry.active = True
                self._waiting -= 1
            if entry.active:
                yield entry, fresh
            if looks and self._waiting and entry in self._entries:
                before.add(entry.footprint)
                if entry.key is not None:
                    written.add(entry.key)

    def _check(self, entry: Queued[P]) -> None:
        own = Overlaps()
        own.add(entry.footprint)
        for other in self._attempts.values():
            assert not own.meets(other.footprint), (
                f"I12: {other.attempt} and {entry.attempt} hold overlapping locks")

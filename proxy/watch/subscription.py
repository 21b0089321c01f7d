"""A watched range: its shards' events merged, and sent to its cohorts of watches.

The rules (I16)
- A subscription emits every event after the revision it began at, once, in order, a revision whole and only
  when every shard of the range has brought everything up to it.
- A cohort is *live* (gets what is emitted), *ahead* (its cursor is beyond what has been emitted) or *lagging*
  (its cursor is behind, or its client does not read). While one lags, what is emitted also goes to a bounded
  ring. A lagging cohort is served from the ring if its cursor reaches into it, else from history; then it is
  live again. It never holds back the others.
- Below a compacted gap of one of its shards a subscription has the others' events only. A cohort that begins
  there lags, and history tells it of the compaction.
- A cohort's cursor is the last revision delivered whole; nothing at or below it is delivered again. Live
  cohorts have everything emitted, wherever their cursor was left.
- Its parts are all shards that own a part of the range, or did since its position (G9). One that comes by a
  move brings what is newer than the move; one that goes leaves once all is emitted up to there.
- Events that wait for other shards have bounded room (``Room``). Over it, parts that are ahead are paused. A
  part goes on, from history, when there is room again or none of its events wait: the slowest is never
  paused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from cluster.placement import Table
from proxy.watch.ahead import Ahead
from proxy.watch.encode import BATCH_BYTES, Batch, joined, merged
from proxy.watch.lagging.ring import Ring, Rings
from proxy.watch.parts import Part

if TYPE_CHECKING:
    from proxy.watch.cohort import Cohort

_RESPONSE_BYTES = 12 << 10  # of joined events, about: a response fits a frame of HTTP/2


@dataclass(slots=True)
class Room:
    """Bytes that all subscriptions of a front may keep of shards that are ahead. Each may exceed it by one
    record and a whole revision."""

    limit_bytes: int
    held_bytes: int = 0
    pauses: int = 0

    @property
    def full(self) -> bool:
        return self.held_bytes > self.limit_bytes

    @property
    def ample(self) -> bool:
        return self.held_bytes <= self.limit_bytes >> 1


class Hub(Protocol):
    room: Room
    rings: Rings

    def fill(self, subscription: Subscription, part: Part) -> None: ...
    def merging(self, subscription: Subscription) -> None: ...
    def catch_up(self, subscription: Subscription, cohort: Cohort) -> None: ...
    def join(self, part: Part) -> None: ...
    def leave(self, part: Part) -> None: ...


class Subscription:
    __slots__ = (
        "_floor", "_held_bytes", "_holder", "_passing", "_paused", "_pending", "_ring", "ahead", "emitted",
        "hub", "key", "lagging", "live", "parts", "prev_kv", "range_end",
    )

    def __init__(self, hub: Hub, key: bytes, range_end: bytes, prev_kv: bool, shards: tuple[int, ...],
                 revision: int) -> None:
        self.hub = hub
        self.key = key
        self.range_end = range_end
        self.prev_kv = prev_kv
        self.emitted = revision  # the last revision emitted, or known to hold nothing for this range
        self.parts = [Part(self, shard, revision) for shard in shards]
        self.live: dict[tuple[object, int], Cohort] = {}  # by shape
        self.ahead: Ahead[Cohort] | None = None  # none is
        self.lagging: dict[Cohort, None] = {}
        # several shards: events of each that wait for others. None, as the ring, saves memory: most are idle
        self._pending: dict[int, list[Batch]] | None = None
        self._held_bytes = 0  # in there
        self._holder: Part | None = None  # the part that was last: while it stays, nothing can be emitted
        self._paused = False  # some parts are
        self._passing = False  # some parts leave soon
        self._ring: Ring | None = None
        self._floor = 0  # below it a shard's events may be missing, here and in the ring: history knows

    def follow(self, table: Table) -> None:
        """G9: keys of the range may have moved. Its new owners' parts come before anything newer is taken."""
        self._catch_up()
        if self.emitted + 1 < table.pruned and not self._end_pruned(table.pruned):
            return
        times = table.times_since(self.key, self.range_end, self.emitted + 1)
        known = {part.shard: part for part in self.parts}
        if times.keys() == known.keys() and not self._passing and not any(last for _, last in times.values()):
            return
        for shard, (first, _) in times.items():
            if shard not in known:
                part = known[shard] = Part(self, shard, max(self.emitted, first - 1))
                self.parts.append(part)
                self.hub.join(part)
        for part in self.parts:
            # not 0, which would mean that it owns a part
            part.until = times.get(part.shard, (0, max(self.emitted, 1)))[1]
        self._holder = None
        self._passing = any(part.until for part in self.parts)
        self.hub.merging(self)
        self.advance()

    def _end_pruned(self, pruned: int) -> bool:
        """This front has missed which shards had the keys: compacted placements are unknown. False: no watch
        is left."""
        for cohort in self.cohorts():
            if self.position(cohort) + 1 < pruned:
                cohort.compacted(pruned)
        if not self.cohorts():
            return False
        parts, self.parts = self.parts, []
        for part in parts:
            self.hub.leave(part)
        self._pending, self._paused = None, False
        self._hold(-self._held_bytes)
        self.emitted = pruned - 1
        self.compacted(pruned)
        return True

    def compacted(self, revision: int) -> None:
        """A shard's events below a compaction are left out. Other shards may bring theirs still."""
        self._floor = max(self._floor, revision)

    def _leave_passed(self) -> bool:
        """Whether parts have left that can bring nothing any more."""
        if not self._passing:
            return False
        passed = [part for part in self.parts if part.until and part.until <= self.emitted]
        for part in passed:
            self.parts.remove(part)
            self.hub.leave(part)
        self._passing = any(part.until for part in self.parts)
        self._holder = None
        return bool(passed)

    def through(self) -> int:
        """Every event up to this revision has been emitted."""
        if len(self.parts) == 1:
            return self.parts[0].through()
        if self._pending and any(self._pending.values()):
            return self.emitted  # what the watermarks allow may not be emitted yet
        return max(self.emitted, min(p.through() for p in self.parts))

    def received(self, part: Part, batch: Batch) -> None:
        if len(self.parts) == 1:
            self._emit(batch)
            return
        if self._pending is None:
            self._pending = {}
            self.hub.merging(self)
        self._pending.setdefault(part.shard, []).append(batch)
        self._hold(batch.size_bytes + BATCH_BYTES)

    def moved(self, part: Part) -> None:
        if len(self.parts) > 1:
            self.advance()

    def advance(self) -> bool:
        """Several shards: emit every revision that all of them have brought whole. True if no events are left
        to wait."""
        holder = self._holder
        if (
            holder is not None
            and holder.through() <= self.emitted
            and self._pending
            and not (self._paused or self.hub.room.full)
        ):
            return False
        self._holder = holder = min(self.parts, key=Part.through)
        low = holder.through()
        if self._pending and low > self.emitted:
            before = sum(map(len, self._pending.values()))
            found = [joined(ready) for batches in self._pending.values() if (ready := _taken(batches, low))]
            if found:
                gone = before - sum(map(len, self._pending.values()))  # of one that is cut, a part stays
                self._hold(-sum([batch.size_bytes for batch in found]) - gone * BATCH_BYTES)
                for piece in (merged(found) if len(found) > 1 else found[0]).pieces(_RESPONSE_BYTES):
                    self._emit(piece)
        self.emitted = max(self.emitted, low)
        if self._leave_passed():
            return self.advance()  # the merge goes on without them
        if self._paused or self.hub.room.full:
            self._make_room()
        if self._paused or self._passing or (self._pending and any(self._pending.values())):
            return False
        self._pending = None
        return True

    def _hold(self, size_bytes: int) -> None:
        self._held_bytes += size_bytes
        self.hub.room.held_bytes += size_bytes

    def _make_room(self) -> None:
        room, pending = self.hub.room, self._pending or {}
        full, ample = room.full, room.ample
        go_on = []
        self._paused = False
        for part in self.parts:
            waits = bool(pending.get(part.shard))
            if part.paused and (ample or not waits):
                go_on.append(part)
            elif full and waits and not part.paused:
                room.pauses += 1
                part.pause()
            self._paused = self._paused or part.paused
        for part in go_on:
            part.resume()

    def close(self) -> None:
        self._pending = None
        self._hold(-self._held_bytes)

    def fill(self, part: Part) -> None:
        self.hub.fill(self, part)

    def _emit(self, batch: Batch) -> None:
        first, last = batch.first, batch.last
        assert first > self.emitted, f"I16: revision {first} after {self.emitted}"
        ahead = self.ahead
        if ahead is not None and (begun := deque(ahead.before(last))):
            for piece in batch.cut([cursor for cursor in begun if cursor >= first]):
                while begun and begun[0] < piece.first:
                    for cohort in ahead.take(begun.popleft()):
                        self._place(cohort, True)
                self._tell(piece)
            self._leave_ahead()
        else:
            self._tell(batch)

    def _tell(self, batch: Batch) -> None:
        self.emitted = batch.first - 1  # a cohort that lags from here on has everything before this batch
        batch.framed = {}
        for cohort in tuple(self.live.values()):
            cohort.deliver(batch)
        batch.forget()
        if self._ring is not None:
            self.hub.rings.append(self._ring, batch)
        self.emitted = batch.last

    def _leave_ahead(self) -> None:
        if not self.ahead:
            self.ahead = None

    def _catch_up(self) -> None:
        """Take in how far the parts are."""
        if len(self.parts) > 1:
            self.advance()
        else:
            self.emitted = max(self.emitted, self.parts[0].through())

    def add(self, cohort: Cohort) -> None:
        self._catch_up()
        if cohort.cursor >= self.emitted and cohort.cursor + 1 >= self._floor:
            self._place(cohort, cohort.cursor == self.emitted)
        else:
            self.lag(cohort)
            self.resume(cohort)

    def _place(self, cohort: Cohort, live: bool) -> None:
        if not live:
            if self.ahead is None:
                self.ahead = Ahead()
            self.ahead.add(cohort)
        elif (same := self.live.setdefault(cohort.shape, cohort)) is not cohort:
            same.absorb(cohort)

    def position(self, cohort: Cohort) -> int:
        """Every event up to this revision has been delivered to a cohort."""
        return max(cohort.cursor, self.emitted) if cohort not in self.lagging else cohort.cursor

    def cohorts(self) -> list[Cohort]:
        return [*self.live.values(), *(self.ahead or ()), *self.lagging]

    def client(self) -> Hashable:
        """One of the clients that watch: the cost of its events counts as that client's."""
        cohort = next(chain(self.live.values(), self.ahead or (), self.lagging), None)
        return None if cohort is None else cohort.client

    def remove(self, cohort: Cohort) -> bool:
        if cohort in self.lagging:
            self._recovered(cohort)
        elif self.live.get(cohort.shape) is cohort:
            del self.live[cohort.shape]
        elif self.ahead is not None:
            self.ahead.remove(cohort)
            self._leave_ahead()
        return not self.live and not self.lagging and not self.ahead

    def lag(self, cohort: Cohort) -> None:
        """A cohort cannot take the next events: it goes on from its cursor later."""
        if self.live.get(cohort.shape) is cohort:
            del self.live[cohort.shape]
            cohort.cursor = max(cohort.cursor, self.emitted)
        if self._ring is None:
            self._ring = Ring(self.emitted + 1)
        self.lagging[cohort] = None

    def resume(self, cohort: Cohort) -> None:
        ring = self._ring
        if cohort.blocked or cohort.asking or cohort not in self.lagging or ring is None:
            return
        if cohort.cursor + 1 < max(ring.begin, self._floor):
            self.hub.catch_up(self, cohort)
            return
        for batch in ring.after(cohort.cursor, _RESPONSE_BYTES):
            cohort.deliver(batch)
            batch.forget()
            if cohort.blocked or cohort not in self.lagging:
                return
        self._recovered(cohort)
        # history may have brought it further than the live events
        self._place(cohort, cohort.cursor <= self.emitted)

    def _recovered(self, cohort: Cohort) -> None:
        del self.lagging[cohort]
        if not self.lagging and self._ring is not None:
            self.hub.rings.drop(self._ring)
            self._ring = None


def _taken(batches: list[Batch], low: int) -> list[Batch]:
    whole = next((at for at, batch in enumerate(batches) if batch.last > low), len(batches))
    ready = batches[:whole]
    if whole < len(batches) and (part := batches[whole].between(0, low)) is not None:
        rest = batches[whole].between(low, batches[whole].last)
        assert rest is not None
        ready.append(part)
        batches[whole] = rest
    del batches[:whole]
    return ready

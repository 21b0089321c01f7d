"""A range that somebody watches: its shards' events merged, and who gets them.

The rules (I16)
- A subscription emits every event after the revision it began at, once, in order, a revision whole and only
  when every shard of the range has brought everything up to it.
- A watch is *live* (gets what is emitted) or *lagging* (its cursor is behind, or its client does not read). While
  anybody lags, what is emitted is also kept in a bounded ring. A lagging watch is served from the ring if
  its cursor reaches into it, else from history; then it is live again. It never holds back the others.
- A watch's cursor is the last revision delivered whole; what is at or below it is not delivered again.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from proxy.watch.encode import Batch, Event
from proxy.watch.parts import Part

_RING_BYTES = 4 << 20


class Watch(Protocol):
    """One client's watch, as a subscription sees it."""

    cursor: int
    asking: bool

    @property
    def blocked(self) -> bool: ...
    def deliver(self, batch: Batch) -> None: ...


class Hub(Protocol):
    """What a subscription asks of the hub."""

    def fill(self, subscription: Subscription, part: Part) -> None: ...
    def catch_up(self, subscription: Subscription, watch: Watch) -> None: ...


class Subscription:
    """One distinct (range, prev_kv)."""

    __slots__ = ("_pending", "_ring", "_ring_bytes", "_ring_from", "emitted", "hub", "key", "lagging", "live", "parts",
                 "prev_kv", "range_end")

    def __init__(self, hub: Hub, key: bytes, range_end: bytes, prev_kv: bool, shards: tuple[int, ...],
                 revision: int) -> None:
        """Emits the events after ``revision``."""
        self.hub = hub
        self.key = key
        self.range_end = range_end
        self.prev_kv = prev_kv
        self.emitted = revision  # the last revision emitted, or known to hold nothing for this range
        self.parts = [Part(self, shard, revision) for shard in shards]
        self.live: dict[Watch, None] = {}
        self.lagging: dict[Watch, None] = {}
        self._pending: dict[int, list[tuple[int, Batch]]] = {}  # several shards: revision -> (shard, events)
        self._ring: deque[Batch] = deque()
        self._ring_bytes = 0
        self._ring_from = revision + 1  # the ring holds every batch from this revision on, while anybody lags

    def through(self) -> int:
        """Every event up to this revision has been emitted."""
        if len(self.parts) == 1:
            return self.parts[0].through()
        return max(self.emitted, min(p.through() for p in self.parts))

    # -- from the shards --------------------------------------------------------------------------

    def received(self, part: Part, batch: Batch) -> None:
        """The next events of one shard."""
        if len(self.parts) == 1:
            self._emit(batch)
        else:
            self._pending.setdefault(batch.revision, []).append((part.shard, batch))

    def moved(self, part: Part) -> None:
        """A shard's part has got further: emit what is whole now."""
        if len(self.parts) > 1:
            self.advance()

    def advance(self) -> None:
        """Several shards: emit, in order, every revision that all of them have brought whole."""
        low = min(p.through() for p in self.parts)
        if self._pending:
            for revision in sorted(r for r in self._pending if r <= low):
                found = sorted(self._pending.pop(revision), key=lambda item: item[0])
                if len(found) == 1:
                    self._emit(found[0][1])
                    continue
                events: list[Event] = []
                for _, batch in found:
                    events += batch.events
                events.sort(key=lambda event: event[5])  # the sequencer gave each change its place
                self._emit(Batch(revision, events, sum(b.size_bytes for _, b in found)))
        if low > self.emitted:
            self.emitted = low

    def fill(self, part: Part) -> None:
        """A part has a gap to read from history."""
        self.hub.fill(self, part)

    def _emit(self, batch: Batch) -> None:
        self.emitted = batch.revision - 1  # a watch that lags from here on has everything before this batch
        for watch in tuple(self.live):
            watch.deliver(batch)
        if self.lagging:
            self._ring.append(batch)
            self._ring_bytes += batch.size_bytes
            while self._ring_bytes > _RING_BYTES:
                dropped = self._ring.popleft()
                self._ring_bytes -= dropped.size_bytes
                self._ring_from = dropped.revision + 1
        self.emitted = batch.revision

    # -- the watches ------------------------------------------------------------------------------

    def add(self, watch: Watch) -> None:
        """A new watch, from its cursor on."""
        if watch.cursor >= self.emitted:
            self.live[watch] = None
        else:
            self.lag(watch)
            self.resume(watch)

    def remove(self, watch: Watch) -> bool:
        """A watch has ended. True if nobody is left."""
        self.live.pop(watch, None)
        if self.lagging.pop(watch, 0) is None:
            self._forget_ring()
        return not self.live and not self.lagging

    def lag(self, watch: Watch) -> None:
        """A watch cannot take what is emitted next: it goes on from its cursor later."""
        if watch in self.live:
            del self.live[watch]
            watch.cursor = max(watch.cursor, self.emitted)
        if not self.lagging:
            self._ring_from = self.emitted + 1
        self.lagging[watch] = None

    def resume(self, watch: Watch) -> None:
        """Bring a lagging watch forward, as far as its client takes it."""
        if watch.blocked or watch.asking or watch not in self.lagging:
            return
        if watch.cursor + 1 < self._ring_from:
            self.hub.catch_up(self, watch)
            return
        for batch in self._ring:
            if batch.revision > watch.cursor:
                watch.deliver(batch)
                if watch.blocked or watch not in self.lagging:
                    return
        del self.lagging[watch]
        self.live[watch] = None
        self._forget_ring()

    def _forget_ring(self) -> None:
        if not self.lagging:
            self._ring.clear()
            self._ring_bytes = 0

    def statistics(self) -> dict[str, int]:
        """Figures for debugging."""
        return {"live": len(self.live), "lagging": len(self.lagging), "ring_bytes": self._ring_bytes,
                "emitted": self.emitted}

"""The source of watch events: what this replica applies, for the fronts of its own host.

A front subscribes to a range once for all its clients. Events leave with the tick that applied them, one
record per subscription and revision, encoded once per set of subscriptions with the same wish for
``prev_kv``. History (a watch from an old revision) is read in slices, off the apply path, and each answer says
up to which applied revision it is complete: because a link keeps its order, the front knows exactly which live
events come after it (review (b), Join).

Matching is by exact key in a dictionary, and by an index for ranges (``range_index``): one event costs a dictionary
look-up plus the ranges that hold it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cluster import messages
from cluster.messages import EVENTS_HEAD, MORE_EVENTS, SUBSCRIBE_HEAD, SUBSCRIBED_BODY, Status
from cluster.ranges import is_creation
from node.fronts import FrontLink
from node.range_index import RangeIndex

PREV_KV = 1
_PIECE = 256  # events of one revision that leave before it is applied whole
Event = tuple[int, int, bytes, bytes, int]  # revision, kind, key, KeyValue, place in the revision
PUT = 0  # kinds of event


class History(Protocol):
    """What is read of the store."""

    @property
    def revision(self) -> int: ...
    @property
    def compact_revision(self) -> int: ...
    def previous(self, key: bytes, revision: int) -> bytes | None: ...


@dataclass(slots=True, eq=False)
class Subscription:
    """One front's standing wish for the events of a range."""

    link: FrontLink
    rid: int
    key: bytes
    range_end: bytes  # b"" one key, b"\\0" to the end
    from_revision: int
    prev_kv: bool
    pieces: int = 0  # of this revision some have been sent


class WatchSource:
    """All subscriptions of this node."""

    def __init__(self, store: History, mark_dirty: Callable[[FrontLink], None]) -> None:
        self._store = store
        self._mark_dirty = mark_dirty
        self._keys: dict[bytes, list[Subscription]] = {}
        self._ranges: RangeIndex[Subscription] = RangeIndex()
        self._collected: dict[Subscription, list[tuple[int, bytes]]] = {}
        self.holding = False  # an apply is under way in slices
        self._late: list[tuple[FrontLink, int, bytes]] = []  # who subscribed meanwhile
        self._count = 0
        self.events = 0

    @property
    def active(self) -> bool:
        """Whether anybody wants events at all."""
        return self._count > 0

    def subscribe(self, link: FrontLink, rid: int, body: bytes) -> None:
        """Register; the answer tells from which revision on events come live."""
        if self.holding:
            self._late.append((link, rid, body))
            return
        from_revision, flags, key_len = SUBSCRIBE_HEAD.unpack_from(body)
        at = SUBSCRIBE_HEAD.size
        key, range_end = body[at : at + key_len], body[at + key_len :]
        self.unsubscribe(link, rid)
        live_from = max(from_revision, self._store.revision + 1)
        sub = Subscription(link, rid, key, range_end, live_from, bool(flags & PREV_KV))
        link.subscriptions[rid] = sub
        if range_end:
            self._ranges.add(sub)
        else:
            self._keys.setdefault(key, []).append(sub)
        self._count += 1
        link.answer(rid, Status.SUBSCRIBED, SUBSCRIBED_BODY.pack(live_from, self._store.compact_revision))
        self._mark_dirty(link)

    def unsubscribe(self, link: FrontLink, rid: int) -> None:
        """End one subscription; nothing if there is none."""
        if self._late:
            self._late = [late for late in self._late if late[:2] != (link, rid)]
        sub = link.subscriptions.pop(rid, None)
        if sub is None:
            return
        self._count -= 1
        if sub.range_end:
            self._ranges.remove(sub)
        else:
            same = self._keys[sub.key]
            same.remove(sub)
            if not same:
                del self._keys[sub.key]

    def gone(self, link: FrontLink) -> None:
        """The link is dropped: its subscriptions end."""
        self._late = [late for late in self._late if late[0] is not link]
        for rid in list(link.subscriptions):
            self.unsubscribe(link, rid)

    def lost(self) -> None:
        """A snapshot was installed: revisions were jumped over (H8). Fronts re-join from history."""
        self._collected.clear()
        self.emit([])
        for subs in [*self._keys.values(), self._ranges.all()]:
            for sub in list(subs):
                sub.link.answer(sub.rid, Status.LOST, b"")
                self._mark_dirty(sub.link)
                self.unsubscribe(sub.link, sub.rid)

    def emit(self, events: list[Event]) -> None:
        """Send the events of what was just applied: ``(revision, kind, key, KeyValue, sub)`` in order."""
        self._collect(events)
        collected, self._collected = self._collected, {}
        for sub, matched in collected.items():
            if sub.link.subscriptions.get(sub.rid) is sub:  # else it ended meanwhile
                self.events += len(matched)
                if sub.pieces:
                    matched = self._end_pieces(sub, matched)
                self._send(sub, matched)
        if self.holding:
            self.holding = False
            late, self._late = self._late, []
            for link, rid, body in late:
                self.subscribe(link, rid, body)

    def gather(self, events: list[Event]) -> None:
        """Events of an apply that is under way in slices: they are sent with the next :meth:`emit`, and who
        subscribes until then is live after it."""
        self.holding = True
        self._collect(events)
        # what is there of the last revision leaves: the front takes it in while this goes on, instead of a million
        # events at once
        for sub, matched in self._collected.items():
            revision = matched[-1][0] if matched else 0
            if len(matched) >= _PIECE and sub.pieces in (0, revision):
                first = next(i for i, event in enumerate(matched) if event[0] == revision)
                piece = matched[first:]
                del matched[first:]
                head = EVENTS_HEAD.pack(revision, len(piece) | MORE_EVENTS)
                sub.link.answer(sub.rid, Status.EVENTS, head + b"".join([event for _, event in piece]))
                sub.pieces = revision
                self.events += len(piece)
                self._mark_dirty(sub.link)

    def _end_pieces(self, sub: Subscription, matched: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """What comes before the revision that was sent in pieces, then its rest; returns what comes after it."""
        revision, sub.pieces = sub.pieces, 0
        first, last = bisect_left(matched, (revision, b"")), bisect_left(matched, (revision + 1, b""))
        self._send(sub, matched[:first])
        rest = [event for _, event in matched[first:last]]
        sub.link.answer(sub.rid, Status.EVENTS, EVENTS_HEAD.pack(revision, len(rest)) + b"".join(rest))
        return matched[last:]

    def _collect(self, events: list[Event]) -> None:
        collected = self._collected
        for revision, kind, key, kv, place in events:
            matches = self._match(key)
            if not matches:
                continue
            plain = with_prev = None
            for sub in matches:
                if revision < sub.from_revision:
                    continue
                if sub.prev_kv:
                    if with_prev is None:
                        created = kind == PUT and is_creation(kv)
                        prev = b"" if created else self._store.previous(key, revision) or b""
                        with_prev = messages.encode_event(revision, kind, key, kv, prev, place)
                    event = with_prev
                else:
                    if plain is None:
                        plain = messages.encode_event(revision, kind, key, kv, b"", place)
                    event = plain
                collected.setdefault(sub, []).append((revision, event))

    def _send(self, sub: Subscription, matched: list[tuple[int, bytes]]) -> None:
        # one record per revision: a revision is sent whole (I16)
        at = 0
        while at < len(matched):
            revision = matched[at][0]
            stop = at + 1
            while stop < len(matched) and matched[stop][0] == revision:
                stop += 1
            body = EVENTS_HEAD.pack(revision, stop - at) + b"".join([e for _, e in matched[at:stop]])
            sub.link.answer(sub.rid, Status.EVENTS, body)
            at = stop
        self._mark_dirty(sub.link)

    def _match(self, key: bytes) -> list[Subscription]:
        exact = self._keys.get(key)
        if not len(self._ranges):
            return exact or []
        found = self._ranges.holding(key)
        return [*exact, *found] if exact else found

    def statistics(self) -> dict[str, int]:
        """Counts for metrics."""
        return {"subscriptions": self._count, "events": self.events}

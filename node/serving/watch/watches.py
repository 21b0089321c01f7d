"""The source of watch events: what this replica applies, for the fronts of its own host.

A front subscribes to a range once for all its clients. Events leave with the tick that applied them, one
record per subscription, of all revisions that were applied (``cluster.wire.events``), encoded once per wish
for ``prev_kv``. History (a watch from an old revision) is read in slices, and each answer says up to which
applied revision it is complete: a link keeps its order, so the front knows which live events come after it
(review (b), Join).

What one front gets at once is bounded: an event of 1 MB that lies in 2,000 of its ranges was 2 GB. Further
ranges are lost, as all are when a snapshot is installed. The front reads them as history, at its pace.

Matching is by exact key in a dictionary, and by an index for ranges (``range_index``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.evaluate.reading.ranges import is_creation
from cluster.evaluate.steps import finish
from cluster.wire.events import EVENT, EVENTS_HEAD, MORE_EVENTS, event_field
from cluster.wire.messages import SUBSCRIBE_HEAD, SUBSCRIBED_BODY, Status
from node.links.fronts import FrontLink
from node.serving.streams import first_pieces
from node.serving.watch.range_index import RangeIndex
from node.slicing.slicer import Slices

if TYPE_CHECKING:
    from node.storage import StateStore

PREV_KV = 1
_NEVER = 1 << 63  # no revision
_LEAVE = 32  # subscriptions that leave the indexes, or are told that they are lost, in a step: 200 us
_PIECE = 256  # events of one revision that leave before it is applied whole
# of events, about: a front makes a response of each record, which fits a frame of HTTP/2
_RECORD_BYTES = 12 << 10
_PIECE_BYTES = 16 << 20  # of one revision: a link takes no message of 1 GiB
_EMIT_BYTES = 64 << 20  # of events to one front at once, and the last range's: those behind it are lost
Event = tuple[int, int, bytes, bytes, int]  # revision, kind, key, KeyValue, place in the revision
PUT = 0  # kinds of event
Encoded = tuple[int, bytes, bytes]  # revision, entry of the table, field


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

    def __init__(
        self, store: StateStore, mark_dirty: Callable[[FrontLink], None], start: Callable[[Slices], None],
        caught_up: Callable[[], None],
    ) -> None:
        """``start``: runs work in slices. ``caught_up``: fronts without watermarks may have them."""
        self._store = store
        self._mark_dirty = mark_dirty
        self._start = start
        self._caught_up = caught_up
        self._keys: dict[bytes, list[Subscription]] = {}
        self._ranges: RangeIndex[Subscription] = RangeIndex()
        self._collected: dict[Subscription, list[Encoded]] = {}
        self.holding = False  # an apply is under way in slices
        self._late: list[tuple[FrontLink, int, bytes]] = []  # subscriptions meanwhile
        self._links: set[FrontLink] = set()  # with subscriptions
        self._count = 0

    @property
    def active(self) -> bool:
        return self._count > 0

    def subscribe(self, link: FrontLink, rid: int, body: bytes) -> None:
        """Register; the answer names the revision from which on events come live."""
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
        self._links.add(link)
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
        link.lost.pop(rid, None)
        sub = link.subscriptions.pop(rid, None)
        if sub is None:
            return
        self._count -= 1
        self._drop(sub)

    def _drop(self, sub: Subscription) -> None:
        if sub.range_end:
            self._ranges.remove(sub)
        else:
            same = self._keys[sub.key]
            same.remove(sub)
            if not same:
                del self._keys[sub.key]

    def gone(self, link: FrontLink) -> None:
        self._late = [late for late in self._late if late[0] is not link]
        ended, link.subscriptions, link.lost = link.subscriptions, {}, {}
        self._links.discard(link)
        self._count -= len(ended)
        for sub in ended.values():
            sub.from_revision = _NEVER
        if ended:
            self._start(self._leave(list(ended.values()), self._keys))

    def _leave(self, ended: list[Subscription], keys: dict[bytes, list[Subscription]]) -> Slices:
        """Subscriptions that have ended leave the indexes, a few at a time, unless the indexes go first."""
        while ended and keys is self._keys:
            for _ in range(min(_LEAVE, len(ended))):
                self._drop(ended.pop())
            yield

    def _lose(self, subs: list[Subscription]) -> None:
        """These got too much at once. Their fronts re-join from history, told in slices."""
        links = {sub.link for sub in subs if not sub.link.lost}  # the others are being told
        for sub in subs:
            sub.link.lost[sub.rid] = sub.link.subscriptions.pop(sub.rid)
            sub.from_revision = _NEVER
        self._count -= len(subs)
        self._start(self._leave(subs, self._keys))
        if links:
            self._start(self._tell_lost(links))

    def lost(self) -> None:
        """A snapshot was installed: revisions were jumped over (H8). Fronts re-join from history, told in
        slices. A front gets no watermark (I16) until it has heard of all its subscriptions."""
        self._collected.clear()
        self.emit([])
        self._keys, self._ranges, self._count = {}, RangeIndex(), 0
        links, self._links = self._links, set()
        for link in links:
            link.subscriptions.update(link.lost)  # of an install just before
            link.lost, link.subscriptions = link.subscriptions, {}
        if links:
            self._start(self._tell_lost(links))

    def _tell_lost(self, links: set[FrontLink]) -> Slices:
        for link in links:
            while link.lost:
                for _ in range(min(_LEAVE, len(link.lost))):
                    link.answer(link.lost.popitem()[0], Status.LOST, b"")
                self._mark_dirty(link)
                yield
        self._caught_up()

    def emit(self, events: list[Event]) -> None:
        """Send the events of what was just applied: ``(revision, kind, key, KeyValue, sub)`` in order."""
        self._collect(events, self._collected)
        collected, self._collected = self._collected, {}
        made: dict[FrontLink, int] = {}
        lost: list[Subscription] = []
        for sub, matched in collected.items():
            if sub.link.subscriptions.get(sub.rid) is sub:  # else it ended meanwhile
                if not _fits(made, sub.link, matched):
                    lost.append(sub)
                    continue
                if sub.pieces:
                    matched = self._end_pieces(sub, matched)
                self._send(sub, matched)
        if lost:
            self._lose(lost)
        if self.holding:
            self.holding = False
            late, self._late = self._late, []
            for link, rid, body in late:
                self.subscribe(link, rid, body)

    def gather(self, events: list[Event]) -> None:
        """Events of an apply that is under way in slices leave with the next :meth:`emit`; a subscription
        until then is live after it."""
        self.holding = True
        step: dict[Subscription, list[Encoded]] = {}
        self._collect(events, step)
        made: dict[FrontLink, int] = {}
        lost: list[Subscription] = []
        # what is there of the last revision leaves: the front takes it in while this goes on, instead of a
        # million events at once
        for sub, fresh in step.items():
            matched = self._collected.setdefault(sub, fresh)
            if matched is not fresh:
                matched += fresh
            revision = matched[-1][0]
            if len(matched) >= _PIECE and sub.pieces in (0, revision):
                first = next(i for i, event in enumerate(matched) if event[0] == revision)
                # what is before leaves with the end, and not in pieces: a front keeps one revision's
                if sum([len(event[2]) for event in matched[:first]]) >= _PIECE_BYTES:
                    continue
                if not _fits(made, sub.link, matched[first:]):
                    lost.append(sub)
                    del self._collected[sub]
                    continue
                piece = self._send_pieces(sub, revision, matched[first:])
                del matched[first:]
                sub.link.answer(sub.rid, Status.EVENTS, _record(revision, piece, MORE_EVENTS))
                sub.pieces = revision
                self._mark_dirty(sub.link)
        if lost:
            self._lose(lost)

    def _end_pieces(self, sub: Subscription, matched: list[Encoded]) -> list[Encoded]:
        """Send what comes before the revision that was sent in pieces, then its rest; returns what comes
        after."""
        revision, sub.pieces = sub.pieces, 0
        self._send(sub, [event for event in matched if event[0] < revision])
        rest = self._send_pieces(sub, revision, [event for event in matched if event[0] == revision])
        sub.link.answer(sub.rid, Status.EVENTS, _record(revision, rest))
        return [event for event in matched if event[0] > revision]

    def _collect(self, events: list[Event], collected: dict[Subscription, list[Encoded]]) -> None:
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
                        prev = b"" if created else self._store.previous(key, revision, kept=True) or b""
                        field = event_field(kind, kv, prev)
                        with_prev = (revision, EVENT.pack(revision, kind, place, len(field)), field)
                    event = with_prev
                else:
                    if plain is None:
                        field = event_field(kind, kv)
                        plain = (revision, EVENT.pack(revision, kind, place, len(field)), field)
                    event = plain
                collected.setdefault(sub, []).append(event)

    def _send(self, sub: Subscription, matched: list[Encoded]) -> None:
        if sum([len(event[2]) for event in matched]) > _RECORD_BYTES:
            self._send_many(sub, matched)
        elif matched:
            sub.link.answer(sub.rid, Status.EVENTS, _record(matched[0][0], matched))
        self._mark_dirty(sub.link)

    def _send_many(self, sub: Subscription, matched: list[Encoded]) -> None:
        begin = size = last = 0
        for at, (revision, _, field) in enumerate(matched):
            if size >= _RECORD_BYTES and revision != last:  # I16: a record holds whole revisions, or goes on
                self._send_record(sub, matched[begin:at], size)
                begin, size = at, 0
            size += len(field)
            last = revision
        self._send_record(sub, matched[begin:], size)

    def _send_record(self, sub: Subscription, events: list[Encoded], size: int) -> None:
        """``size`` bytes of events. If they are very many, nearly all are the last revision's."""
        if size >= _PIECE_BYTES:
            revision = events[-1][0]
            first = next(i for i, event in enumerate(events) if event[0] == revision)
            if first:
                sub.link.answer(sub.rid, Status.EVENTS, _record(events[0][0], events[:first]))
            events = self._send_pieces(sub, revision, events[first:])
        sub.link.answer(sub.rid, Status.EVENTS, _record(events[0][0], events))

    def _send_pieces(self, sub: Subscription, revision: int, events: list[Encoded]) -> list[Encoded]:
        """Send all pieces of one revision's events but the last one; returns that."""
        begin = finish(first_pieces(
            [event[2] for event in events], _PIECE_BYTES, lambda begin, end: sub.link.answer(
                sub.rid, Status.EVENTS, _record(revision, events[begin:end], MORE_EVENTS))))
        return events[begin:]

    def _match(self, key: bytes) -> list[Subscription]:
        exact = self._keys.get(key)
        if not len(self._ranges):
            return exact or []
        found = self._ranges.holding(key)
        return [*exact, *found] if exact else found


def _fits(made: dict[FrontLink, int], link: FrontLink, events: list[Encoded]) -> bool:
    """Whether a front gets these events, behind those that are ``made`` for it in this turn."""
    before = made.get(link, 0)
    made[link] = before + sum([len(event[2]) for event in events])
    return before < _EMIT_BYTES


def _record(revision: int, events: list[Encoded], more: int = 0) -> bytes:
    """The body of an EVENTS record whose first revision this is."""
    if len(events) == 1:
        return EVENTS_HEAD.pack(revision, revision, 1 | more) + events[0][1] + events[0][2]
    head = EVENTS_HEAD.pack(revision, events[-1][0] if events else revision, len(events) | more)
    return b"".join((head, *[event[1] for event in events], *[event[2] for event in events]))

"""One shard's events of one range: in order, whole, without a gap or a repeat.

A part subscribes on a link from the revision after its position. The node answers from which revision on
events come live. What lies between is read from history while live events are held back; then both join
(review (b), Join). A lost link, a LOST record or a restarted node begins the same again, from the position:
what is at or below it is dropped, what is missing is read from history (I16).

A part whose events wait for other shards may be *paused* (``subscription``): it takes nothing more, and reads
what it has missed from history when it goes on.
"""

from __future__ import annotations

from typing import Protocol

from cluster.wire.messages import SUBSCRIBE_HEAD, SUBSCRIBED_BODY, Method
from proxy.routing.links import Link
from proxy.watch.encode import Batch, joined

# live events held back while a gap is read; beyond it they are dropped and read as history
_HELD_BYTES = 8 << 20


class Owner(Protocol):
    """The subscription that a part belongs to."""

    key: bytes
    range_end: bytes
    prev_kv: bool

    def received(self, part: Part, batch: Batch) -> None: ...
    def moved(self, part: Part) -> None: ...
    def fill(self, part: Part) -> None: ...


class Poster(Protocol):
    """What sends records: the router."""

    def post(self, link: Link, rid: int, method: int, body: bytes) -> None: ...


class Part:
    """States: away (no link), asked (SUBSCRIBE sent), filling (reading a gap), live; in each it may be
    paused, but for live."""

    __slots__ = (
        "_held", "_held_bytes", "_pieces", "filling", "generation", "link", "live", "live_from", "owner",
        "paused", "position", "rid", "shard",
    )

    def __init__(self, owner: Owner, shard: int, position: int) -> None:
        self.owner = owner
        self.shard = shard
        self.position = position  # every event up to it has been passed on
        self.link: Link | None = None
        self.rid = 0
        self.live = False
        self.live_from = 0  # from this revision on the link brings everything; 0: not known yet
        self.filling = False  # a question for history is under way
        self.paused = False
        self.generation = 0  # of the subscription; answers for an older one are not taken
        self._pieces: list[Batch] | None = None  # of a revision that has not come whole
        self._held: list[Batch] | None = None  # None but for a short while: most parts are idle
        self._held_bytes = 0

    def through(self) -> int:
        """Every event of this shard's part of the range up to this revision has been passed on."""
        if self.live and self.link is not None and self.link.watermark > self.position:
            return self.link.watermark
        return self.position

    def join(self, link: Link, router: Poster) -> None:
        """Subscribe on a link, from where this part stands."""
        self.leave(router)
        self.link = link
        self.rid = link.next_rid
        link.next_rid += 1
        link.parts[self.rid] = self
        link.asked.add(self.rid)
        owner = self.owner
        head = SUBSCRIBE_HEAD.pack(self.position + 1, 1 if owner.prev_kv else 0, len(owner.key))
        router.post(link, self.rid, Method.SUBSCRIBE, head + owner.key + owner.range_end)

    def leave(self, router: Poster | None) -> None:
        """End the subscription; ``router`` None: the link or the node has ended it already."""
        self.position = self.through()
        link, self.link = self.link, None
        if link is not None:
            link.parts.pop(self.rid, None)
            link.asked.discard(self.rid)
            if router is not None:
                router.post(link, self.rid, Method.UNSUBSCRIBE, b"")
        self.live = self.filling = False
        self.live_from = 0
        self.generation += 1
        self._drop()

    def end(self, router: Poster) -> None:
        """Its subscription has ended. Nothing refers to that any more, so that it is freed at once: garbage
        that refers to itself stays for hours (``tools.muster.machine.process.setup``)."""
        self.leave(router)
        del self.owner

    def pause(self) -> None:
        """Take nothing more for now."""
        self.position = self.through()
        self.paused = True
        if self.live:
            self.live, self.live_from = False, self.position + 1
        if self._held is not None:
            self.live_from = self._held[-1].last + 1
        if self._pieces is not None:
            self.live_from = max(self.live_from, self._pieces[0].last + 1)
        self._drop()

    def resume(self) -> None:
        """Go on, from history if something came meanwhile."""
        self.paused = False
        self._go_on()

    def ask_again(self) -> None:
        """A question for history was in vain."""
        self.filling = False
        self._go_on()

    def _go_on(self) -> None:
        if self.live_from and not self.live:
            self._join_or_fill()

    def _drop(self) -> None:
        self._pieces = None
        self._held = None
        self._held_bytes = 0

    def subscribed(self, body: bytes) -> None:
        """SUBSCRIBED: live events begin."""
        self.live_from, _ = SUBSCRIBED_BODY.unpack(body)
        if self.link is not None:
            self.link.asked.discard(self.rid)
        self._join_or_fill()

    def piece(self, batch: Batch) -> None:
        """EVENTS of a revision of which more comes: it is kept until it is whole (I16)."""
        if batch.last > self.position:
            if self.paused:
                # also if it goes on before the rest has come
                self.live_from = max(self.live_from, batch.last + 1)
            elif self._pieces is None or self._pieces[0].last != batch.last:
                self._pieces = [batch]
            else:
                self._pieces.append(batch)

    def events(self, batch: Batch) -> None:
        """EVENTS: whole revisions, or the rest of one."""
        if self._pieces is not None and self._pieces[0].last == batch.first:
            batch, self._pieces = joined([*self._pieces, batch]), None
        fresh = batch if batch.first > self.position else batch.between(self.position, batch.last)
        if fresh is None:
            return  # I16: a node that replays records brings what was delivered
        if self.paused:
            self.live_from = max(self.live_from, fresh.last + 1)
            return
        if self.live:
            self.position = fresh.last
            self.owner.received(self, fresh)
            return
        if self._held is None:
            self._held = []
        self._held.append(fresh)
        self._held_bytes += fresh.size_bytes
        if self._held_bytes > _HELD_BYTES:
            self.live_from = fresh.last + 1
            self._held = None
            self._held_bytes = 0

    def filled(self, batch: Batch | None, next_revision: int) -> bool:
        """A slice of history from ``position + 1``, complete below ``next_revision``. False if nothing was
        gained."""
        self.filling = False
        before = self.position
        if batch is not None and (fresh := batch.between(before, self.live_from - 1)) is not None:
            self.position = fresh.last
            self.owner.received(self, fresh)
        self.position = max(self.position, min(next_revision, self.live_from) - 1)
        if self.position == before:
            return False
        self.owner.moved(self)
        self._join_or_fill()
        return True

    def _join_or_fill(self) -> None:
        if self.paused:
            return
        if self.live_from > self.position + 1:
            if not self.filling:
                self.filling = True
                self.owner.fill(self)
            return
        self.live = True
        held, self._held = self._held, None
        self._held_bytes = 0
        for batch in held or ():
            self.events(batch)
        self.owner.moved(self)

"""One shard's events of one range: in order, whole, without a gap or a repeat.

A part subscribes on a link from the revision after its position; the node answers from where events come
live. What lies between is read from history while live events are held back; then both join. After a lost
link, a LOST record or a restart of the node, the same begins again: events at or below the position are
dropped, missing ones are read from history (I16). A *paused* part (``subscription``) takes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cluster.wire.messages import SUBSCRIBE_HEAD, SUBSCRIBED_BODY, Method
from proxy.routing.links import Link
from proxy.watch.encode import BATCH_BYTES, Batch, joined

_HELD_BYTES = 8 << 20  # live events held back meanwhile; beyond it they are dropped and read as history


class Posts(Protocol):
    """The router: sends records that get no answer of the usual kind."""

    def post(self, link: Link, rid: int, method: int, body: bytes) -> None: ...


class Owner(Protocol):
    key: bytes
    range_end: bytes
    prev_kv: bool

    def received(self, part: Part, batch: Batch) -> None: ...
    def moved(self, part: Part) -> None: ...
    def fill(self, part: Part) -> None: ...


@dataclass(slots=True, eq=False)
class Part:
    """States: away (no link), asked (SUBSCRIBE sent), filling (reading a gap), live. Each but live may be
    paused."""

    owner: Owner
    shard: int
    position: int  # every event up to it has been passed on
    link: Link | None = None
    rid: int = 0
    live: bool = False
    live_from: int = 0  # the link brings everything from this revision on; 0: not known
    filling: bool = False  # reads history
    paused: bool = False
    until: int = 0  # G9: of the range it brings nothing that is newer; 0: it owns a part now
    generation: int = 0  # of the subscription; answers for an older one are dropped
    _pieces: list[Batch] | None = None  # of a revision that is not whole
    _held: list[Batch] | None = None  # None saves memory: most parts are idle
    _held_bytes: int = 0

    def through(self) -> int:
        if self.live and self.link is not None and self.link.watermark > self.position:
            return self.link.watermark
        return self.position

    def join(self, link: Link, router: Posts) -> None:
        self.leave(router)
        self.link = link
        self.rid = link.next_rid
        link.next_rid += 1
        link.parts[self.rid] = self
        link.asked.add(self.rid)
        owner = self.owner
        head = SUBSCRIBE_HEAD.pack(self.position + 1, 1 if owner.prev_kv else 0, len(owner.key))
        router.post(link, self.rid, Method.SUBSCRIBE, head + owner.key + owner.range_end)

    def leave(self, router: Posts | None) -> None:
        """End the subscription; ``router`` None: the link or the node has ended it."""
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

    def end(self, router: Posts) -> None:
        """Its subscription has ended. Dropping the reference frees that at once: a reference cycle would stay
        for hours (``tools.muster.machine.process.setup``)."""
        self.leave(router)
        del self.owner

    def pause(self) -> None:
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
        self.paused = False
        self._go_on()

    def ask_again(self) -> None:
        self.filling = False
        self._go_on()

    def _go_on(self) -> None:
        if self.live_from and not self.live:
            self._join_or_fill()

    def _drop(self) -> None:
        self._pieces = self._held = None
        self._held_bytes = 0

    def subscribed(self, body: bytes) -> None:
        self.live_from, _ = SUBSCRIBED_BODY.unpack(body)
        if self.link is not None:
            self.link.asked.discard(self.rid)
        self._join_or_fill()

    def piece(self, batch: Batch) -> None:
        """EVENTS of a revision of which more comes: kept until it is whole (I16)."""
        if batch.last > self.position:
            if self.paused:
                self.live_from = max(self.live_from, batch.last + 1)
            elif self._pieces is None or self._pieces[0].last != batch.last:
                self._pieces = [batch]
            else:
                self._pieces.append(batch)

    def events(self, batch: Batch) -> None:
        if self._pieces is not None and self._pieces[0].last == batch.first:
            batch, self._pieces = joined([*self._pieces, batch]), None
        fresh = batch if batch.first > self.position else batch.between(self.position, batch.last)
        if fresh is None:
            return  # I16: delivered before the node replayed its records
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
        self._held_bytes += fresh.size_bytes + BATCH_BYTES
        if self._held_bytes > _HELD_BYTES:
            self.live_from = fresh.last + 1
            self._held, self._held_bytes = None, 0

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

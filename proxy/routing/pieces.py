"""Answers that come in pieces, and wait here until they are whole: how much of them each client may have
under way.

Nodes send a window of an answer unasked, and more as they are given credit (``node.serving.streams``). It is
given at once while its client's connection holds little; beyond ``--max-untaken-bytes`` only to the answer
that its connection asked for first, and to none while its client does not take what is ready. So who asks for
much, or reads slowly, has his answers one after the other, and nobody else waits for them. What was read from
a link is told at once, whomever it is for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cluster import errors
from cluster.wire.messages import Method
from proxy.routing.waiting import WRITE, Waiting

if TYPE_CHECKING:
    from proxy.routing.links import Link
    from proxy.routing.router import Router

KEEP_S = 3.0  # so often a node is told that a client takes others of its answers first
CREDIT_BYTES = 256 << 10  # news of so much is worth a record
_LINK_CREDIT_BYTES = 1 << 20
# these give credit as their clients take what has come; or send nothing in pieces but signs of life
_APART = frozenset(map(int, (Method.SNAPSHOT, Method.RANGE_STREAM, Method.STREAM_ROWS, Method.COMPACT)))


class _Coming:
    """One answer."""

    __slots__ = ("credited", "link", "moved_at", "progress", "received", "told_at", "waiting")

    def __init__(self, link: Link, waiting: Waiting) -> None:
        self.link = link
        self.waiting = waiting
        self.received = 0
        self.credited = 0
        self.moved_at = self.told_at = 0.0
        self.progress: object = None  # of its client's connection, when it was last looked at


class Pieces:
    """All such answers of a front."""

    def __init__(self, router: Router, stall_s: float) -> None:
        self._router = router
        self._stall_s = stall_s
        self._coming: dict[Waiting, _Coming] = {}  # oldest first

    def came(self, link: Link, waiting: Waiting | None, size: int) -> None:
        """A piece has been read from a link, and given to who waits for it, if anybody does."""
        link.pieces_read += size
        if link.pieces_read - link.pieces_told >= _LINK_CREDIT_BYTES:
            link.pieces_told = link.pieces_read
            self._router.post(link, 0, Method.CREDIT, link.pieces_read.to_bytes(8, "little"))
        if waiting is None or waiting.method in _APART:
            return
        coming = self._coming.get(waiting)
        if coming is None or coming.link is not link:
            coming = self._coming[waiting] = _Coming(link, waiting)
            coming.told_at = self._router.loop.time()
        coming.received += size
        coming.moved_at = self._router.loop.time()
        client = waiting.client
        if client is not None:
            client.gather(size)
            coming.progress = client.progress
            if client.beyond_all_room:
                self._refuse(coming)
                return
        if coming.received - coming.credited >= CREDIT_BYTES:
            self._give(coming)

    def _give(self, coming: _Coming, first: bool | None = None) -> bool:
        """Credit, if there is room. ``first``: whether its connection waits for no answer before it; None:
        look."""
        client = coming.waiting.client
        if client is not None and not client.room_to_gather:
            if not client.takes:
                return False
            if not (self._is_first(coming, client) if first is None else first):
                return False
        coming.credited = coming.received
        coming.moved_at = self._router.loop.time()
        self._router.post(
            coming.link, coming.waiting.rid, Method.CREDIT, coming.received.to_bytes(8, "little")
        )
        return True

    def _is_first(self, coming: _Coming, client: Any) -> bool:
        connection = client.connection
        for one in self._coming.values():
            if one is coming:
                return True
            other = one.waiting.client
            if (
                other is not None
                and other.connection is connection
                and one.link.pending.get(one.waiting.rid) is one.waiting
            ):
                return False
        return False

    def _refuse(self, coming: _Coming) -> None:
        waiting = coming.waiting
        del self._coming[waiting]
        self._router.cancel(waiting)
        # what is being shown has been written: "too many requests" would say that it has not (I23)
        self._router.fail(waiting, errors.TIMEOUT if waiting.route == WRITE else errors.TOO_MANY_REQUESTS)

    def sweep(self, now: float) -> None:
        """Every ``router.SWEEP_S``: forget what has ended; look again at what waits for room."""
        firsts: dict[object, _Coming] = {}  # by connection
        for waiting, coming in list(self._coming.items()):
            if coming.link.pending.get(waiting.rid) is not waiting:
                del self._coming[waiting]
                continue
            first = waiting.client is None or firsts.setdefault(waiting.client.connection, coming) is coming
            if coming.received - coming.credited >= CREDIT_BYTES and not self._give(coming, first):
                if waiting.client.progress != coming.progress:
                    coming.progress, coming.moved_at = waiting.client.progress, now
                    if now - coming.told_at > KEEP_S:
                        coming.told_at = now
                        self._router.post(
                            coming.link, waiting.rid, Method.CREDIT, coming.credited.to_bytes(8, "little")
                        )
                if now - coming.moved_at > self._stall_s:
                    self._refuse(coming)
                else:
                    waiting.started = now  # it is its client that is waited for

    def __len__(self) -> int:
        return len(self._coming)

"""Answers in pieces, which wait here until they are whole: how much of them each client may have under way.

Nodes send a window of an answer, and more for credit (``node.serving.streams``). Credit is given at once
while the client's connection holds little; beyond ``--max-untaken-bytes`` only to its oldest answer, and to
none while the client takes nothing. So a client that asks for much, or reads slowly, delays only itself. What
was read from a link is credited at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cluster import errors
from cluster.wire.messages import HEAD, Method
from proxy.routing.links import Link
from proxy.routing.sending import Sending
from proxy.routing.waiting import WRITE, Waiting

KEEP_S = 3.0  # so often a node is told that a client takes others of its answers first
CREDIT_BYTES = 256 << 10  # news of so much is worth a record
_LINK_CREDIT_BYTES = 1 << 20
_SIGN_BYTES = HEAD.size + 4  # a part without rows, at most: the node reads on
# these give credit as their clients take what has come; or wait for none
_APART = frozenset(map(int, (
    Method.SNAPSHOT, Method.RANGE_STREAM, Method.STREAM_ROWS, Method.COMPACT, Method.HISTORY)))


@dataclass(slots=True, eq=False)
class _Coming:
    link: Link
    waiting: Waiting
    told_at: float
    received: int = 0
    credited: int = 0
    moved_at: float = 0.0
    progress: object = None  # of its client's connection, when it was last looked at


class Pieces:
    def __init__(self, router: Sending, stall_s: float) -> None:
        self._router = router
        self._stall_s = stall_s
        self._coming: dict[Waiting, _Coming] = {}  # oldest first

    def came(self, link: Link, waiting: Waiting | None, size: int) -> None:
        """A piece has come, and was handed on."""
        link.pieces_read += size
        if link.pieces_read - link.pieces_told >= _LINK_CREDIT_BYTES:
            link.pieces_told = link.pieces_read
            self._router.post(link, 0, Method.CREDIT, link.pieces_read.to_bytes(8, "little"))
        if waiting is None or waiting.method in _APART:
            return
        if waiting.rid not in link.pending:
            return  # it was given up as this piece was handed on
        coming = self._coming.get(waiting)
        if coming is None and size <= _SIGN_BYTES:
            return  # nothing is held of it yet, and nobody's turn is taken
        if coming is None or coming.link is not link:
            coming = self._coming[waiting] = _Coming(link, waiting, self._router.loop.time())
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
        """Credit, if there is room. ``first``: whether this is its connection's oldest answer; None: look."""
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

    def lost(self, link: Link) -> None:
        """A link has ended: what has come of its answers is no longer held for their clients."""
        for waiting, coming in list(self._coming.items()):
            if coming.link is link:
                del self._coming[waiting]
                if waiting.client is not None and link.pending.get(waiting.rid) is waiting:
                    waiting.client.gather(-coming.received)

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

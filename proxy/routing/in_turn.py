"""Writes that take turns, client after client (decision 82).

- *Large writes.* What comes behind a write of a megabyte waits for it at every log and disk: four of them
  made small puts take 200 ms instead of 4. A front lets in a window of them (``--large-write-window-bytes``).
- *Transactions with compares of ranges.* Leaders look at a few at a time. A connection has a share
  (``--max-connection-range-compares``).

Other writes never wait here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cluster import errors
from cluster.pacing.resting import LARGE_BYTES
from cluster.pacing.turns import NO_LIMIT, Turns
from cluster.wire.messages import HEAD
from proxy.routing.sending import Sending
from proxy.routing.waiting import OK, PARTIAL, WRITE, MethodStats, Then, Waiting


class WritesInTurn:
    """One kind. A client is a connection."""

    def __init__(self, router: Sending, turns: Turns[Waiting], go: Callable[[Waiting], None]) -> None:
        """``go`` takes a write whose turn has come."""
        self._router = router
        self._turns = turns
        self._go = go
        self._under_way: dict[Waiting, tuple[object, int, Then | None]] = {}
        self._going_on = False

    def lets_in(self, waiting: Waiting, size: int) -> bool:
        """Whether a write of that size goes on now; else it does when its turn comes."""
        owner = getattr(waiting.call, "peer", None)
        if not self._turns.enter(owner, size, waiting):
            return False
        self._begin(waiting, owner, size)
        return True

    def _begin(self, waiting: Waiting, owner: object, size: int) -> None:
        self._under_way[waiting] = owner, size, waiting.then
        waiting.then = self._answered

    def _answered(self, waiting: Waiting, status: int, body: bytes) -> None:
        router = self._router
        if status == PARTIAL:
            then = self._under_way[waiting][2]
            if then is not None:
                then(waiting, status, body)
            elif waiting.pieces is None:
                waiting.pieces = [body]
            else:
                waiting.pieces.append(body)
            return
        owner, size, waiting.then = self._under_way.pop(waiting)
        self._turns.leave(owner, size)
        self.go_on()
        if waiting.then is not None:
            waiting.then(waiting, status, body)
        elif status != OK:
            router.finish_error(waiting, body)
        else:
            parts = [*(waiting.pieces or ()), body]
            header = router.header(*HEAD.unpack_from(parts[0]))
            waiting.call.reply(header, parts[0][HEAD.size :], *parts[1:])
            waiting.stats.ok += 1

    def go_on(self) -> None:
        """Pass on what there is room for. A loop: one that ends at once makes room for the next."""
        if self._going_on:
            return
        self._going_on = True
        try:
            while (found := self._turns.next()) is not None:
                owner, size, waiting = found
                self._begin(waiting, owner, size)
                if waiting.left:
                    self._router.gone(waiting)
                else:
                    self._go(waiting)
        finally:
            self._going_on = False

    def sweep(self, now: float) -> None:
        """Every ``router.SWEEP_S``: drop what is overdue, or whose client has gone."""
        if not len(self._turns):
            return
        for waiting in self._turns.drop(lambda one: now - one.started > one.limit_s or one.left):
            if waiting.left:
                self._router.gone(waiting)
            else:  # never reached a leader's log
                self._router.fail(waiting, errors.CONTEXT_DEADLINE_EXCEEDED)
        self.go_on()

    def close(self) -> None:
        for waiting in self._turns.drop(lambda one: True):
            self._router.fail(waiting, errors.STOPPED)

    @property
    def waiting(self) -> int:
        return len(self._turns)


class InTurn:
    def __init__(self, router: Sending, large_write_window_bytes: int, range_compares: int) -> None:
        self._router = router
        self.large = WritesInTurn(router, Turns(large_write_window_bytes), router.to_leader)
        self.compares = WritesInTurn(router, Turns(NO_LIMIT, range_compares), self._admit)

    def compare(self, call: Any, method: int, body: bytes, shard: int, stats: MethodStats) -> None:
        """``Router.write`` of a transaction that compares ranges, in turn."""
        router = self._router
        waiting = Waiting(call, method, body, shard, WRITE, router.loop.time(), router.limit_s, stats)
        if self.compares.lets_in(waiting, 1):
            self._admit(waiting)

    def _admit(self, waiting: Waiting) -> None:
        size = len(waiting.body)
        if size <= LARGE_BYTES or self.large.lets_in(waiting, size):
            self._router.to_leader(waiting)

    def sweep(self, now: float) -> None:
        self.compares.sweep(now)
        self.large.sweep(now)

    def close(self) -> None:
        self.compares.close()
        self.large.close()

    def statistics(self) -> dict[str, int]:
        return {"large_writes_waiting": self.large.waiting, "range_compares_waiting": self.compares.waiting}

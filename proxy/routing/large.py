"""Large writes take turns: so many bytes of them are on their way at once, client after client.

A write of a megabyte takes its turn of every log and disk on its way, and whatever comes behind it waits.
Four of them beside small puts made these take 200 ms instead of 4. So a front lets in no more than a window
of them (``--large-write-window-bytes``), and gives it back as they are answered (decision 82). Small writes
never wait here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster import errors
from cluster.pacing.turns import Turns
from cluster.wire.messages import HEAD, Status
from proxy.routing.waiting import Waiting

if TYPE_CHECKING:
    from proxy.routing.router import Router

LARGE_BYTES = 16 << 10
_PARTIAL, _OK = int(Status.PARTIAL), int(Status.OK)
Then = Callable[[Waiting, int, bytes], None] | None


class LargeWrites:
    """Those of a front. A client is a connection."""

    def __init__(self, router: Router, window_bytes: int) -> None:
        self._router = router
        self._turns: Turns[Waiting] = Turns(window_bytes)
        self._under_way: dict[Waiting, tuple[object, int, Then]] = {}

    def lets_in(self, waiting: Waiting) -> bool:
        """Whether a write may go to its leader now. One that may not is sent when its turn comes."""
        owner, size = getattr(waiting.call, "peer", None), len(waiting.body)
        if not self._turns.enter(owner, size, waiting):
            return False
        self._begin(waiting, owner, size)
        return True

    def _begin(self, waiting: Waiting, owner: object, size: int) -> None:
        self._under_way[waiting] = owner, size, waiting.then
        waiting.then = self._answered

    def _answered(self, waiting: Waiting, status: int, body: bytes) -> None:
        router = self._router
        if status == _PARTIAL:
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
        elif status != _OK:
            router.finish_error(waiting, body)
        else:
            parts = [*(waiting.pieces or ()), body]
            header = router.header(*HEAD.unpack_from(parts[0]))
            waiting.call.reply(header, parts[0][HEAD.size :], *parts[1:])
            waiting.stats.ok += 1

    def go_on(self) -> None:
        """What there is room for now is sent."""
        while (found := self._turns.next()) is not None:
            owner, size, waiting = found
            self._begin(waiting, owner, size)
            if waiting.call is not None and waiting.call.closed:
                self._router.gone(waiting)
            else:
                self._router.to_leader(waiting)

    def sweep(self, now: float) -> None:
        """Every ``router.SWEEP_S``: what nobody waits for, or has waited too long, leaves the line."""
        if not len(self._turns):
            return
        for waiting in self._turns.drop(lambda one: _over(one, now)):
            if waiting.call is not None and waiting.call.closed:
                self._router.gone(waiting)
            else:  # never reached a leader's log
                self._router.fail(waiting, errors.CONTEXT_DEADLINE_EXCEEDED)
        self.go_on()

    def close(self) -> None:
        """The front stops."""
        for waiting in self._turns.drop(lambda one: True):
            self._router.fail(waiting, errors.STOPPED)

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._turns)


def _over(waiting: Waiting, now: float) -> bool:
    call = waiting.call
    return now - waiting.started > waiting.limit_s or (call is not None and call.closed)

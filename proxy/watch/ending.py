"""Watches of ended streams leave, some in each turn of the loop. A client that goes away ends all its watches
at once, each at some microseconds for this loop and the node's: 10,000 streams with ten watches each delayed
other clients by 0.6 s."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from proxy.watch.cohort import ClientWatch

if TYPE_CHECKING:
    from proxy.routing.router import Router
    from proxy.watch.stream import WatchStream

_A_TURN = 200  # watches, some 2 ms
_SHARE = 6  # and 1 in 2**6 of those that wait, so that the queue shrinks


class Ending:
    def __init__(self, router: Router) -> None:
        self.count = 0  # of the watches that wait
        self._router = router
        self._streams: deque[tuple[WatchStream, list[ClientWatch]]] = deque()

    def add(self, stream: WatchStream) -> None:
        if stream.watches:
            if not self._streams:
                self._router.at_flush(self._go_on)
            self._streams.append((stream, list(stream.watches.values())))
            self.count += len(stream.watches)

    def _go_on(self) -> None:
        room = max(_A_TURN, self.count >> _SHARE)
        while self._streams and room:
            stream, watches = self._streams[0]
            some = watches[-room:]
            del watches[-room:]
            room -= len(some)
            self.count -= len(some)
            for watch in some:
                if stream.watches.get(watch.id) is watch:  # it has not ended otherwise
                    stream.forget(watch)
            if not watches:
                self._streams.popleft()
        if self._streams:
            self._router.at_flush(self._go_on)

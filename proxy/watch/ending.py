"""Watches whose stream has ended leave a few in a turn of the loop.

A client that goes away ends all its watches at once, and each costs this loop and the node's some
microseconds: 10,000 streams with ten watches each kept others waiting for 0.6 s. What still waits gets
nothing more: its call is closed.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from proxy.watch.cohort import ClientWatch

if TYPE_CHECKING:
    from proxy.routing.router import Router
    from proxy.watch.stream import WatchStream

_A_TURN = 200  # watches, some 2 ms
# and 1 in 2**6 of those that wait: where more end in a turn than leave, more leave in the next ones
_SHARE = 6


class Ending:
    """What ended streams have left behind, in order."""

    def __init__(self, router: Router) -> None:
        self.count = 0  # of the watches that wait
        self._router = router
        self._streams: deque[tuple[WatchStream, list[ClientWatch]]] = deque()

    def add(self, stream: WatchStream) -> None:
        """A stream has ended: its watches leave in the next turns."""
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
                if stream.watches.get(watch.id) is watch:  # else it has ended for another reason meanwhile
                    stream.forget(watch)
            if not watches:
                self._streams.popleft()
        if self._streams:
            self._router.at_flush(self._go_on)

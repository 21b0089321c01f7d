"""Answers to progress requests: how far every watch of a stream is; and periodic progress.

An answer is not below what this host had told any client when the request came: a client often asks to see
that revision reached (Kubernetes, before it lists from its cache). It waits for the nodes' watermarks: a node
with subscriptions applies at once. Requests of one stream share a look, and each has an answer, as in etcd.
One that comes below the revision where a watch begins has none; those of higher revisions wait on.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.routing.router import Router
    from proxy.watch.cohort import ClientWatch
    from proxy.watch.stream import WatchStream

_MOST_ANSWERS = 200  # due to a stream, further requests share the last: some 10 KB of memory at most
_ANSWERS_A_TURN = 500  # of all streams: some 1 ms, as JSON 5 ms
_A_TURN = 200  # watches that are told periodic progress, some 1 ms


class ProgressRequests:
    def __init__(self, router: Router) -> None:
        self._router = router
        # the revision due to each request of a stream: later ones do not delay those before
        self._due: dict[WatchStream, deque[int]] = {}
        self._looking = False

    def ask(self, stream: WatchStream) -> None:
        owed = self._due.setdefault(stream, deque())
        if len(owed) == _MOST_ANSWERS:
            owed.pop()
        owed.append(self._router.shown)
        self.look()

    def look(self) -> None:
        """Watermarks or watches may have moved: answer at the end of this tick."""
        if self._due and not self._looking:
            self._looking = True
            self._router.at_flush(self._answer)

    def forget(self, stream: WatchStream) -> None:
        self._due.pop(stream, None)

    def _answer(self) -> None:
        self._looking = False
        room = _ANSWERS_A_TURN
        for stream, owed in tuple(self._due.items()):
            told = stream.tell_progress(owed[0])
            if told is None:
                continue
            owed.popleft()
            answers = 1
            while owed and owed[0] <= abs(told) and answers < room:
                owed.popleft()
                answers += 1
            if told > 0:
                stream.send_progress(told, answers - 1)
            # an answer may end its stream, which is forgotten then; else it comes behind the others
            if self._due.pop(stream, None) and told:
                self._due[stream] = owed
            room -= answers
            if not room:
                self._router.loop.call_soon(self.look)
                break


class PeriodicProgress:
    """Of watches that want it: some in each turn of the loop, since one stream may have 100,000."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._left: dict[WatchStream, list[ClientWatch]] = {}

    def tell(self, stream: WatchStream) -> None:
        """A stream that is still told of its last interval is not told anew."""
        if stream not in self._left:
            if not self._left:
                self._router.loop.call_soon(self._go_on)
            self._left[stream] = [watch for watch in stream.watches.values() if watch.progress]
            self._left[stream].reverse()

    def forget(self, stream: WatchStream) -> None:
        if stream in self._left:
            self._left[stream] = []

    def _go_on(self) -> None:
        room = _A_TURN
        try:
            while self._left and room > 0:
                stream, watches = next(iter(self._left.items()))
                some = watches[-room:]
                del watches[-room:]
                room -= len(some) or 1
                for watch in reversed(some):
                    if stream.watches.get(watch.id) is watch:  # it has not ended
                        stream.periodic(watch)
                if not watches:
                    del self._left[stream]
        finally:  # a fault ends no other stream's
            if self._left:
                self._router.loop.call_soon(self._go_on)

"""Answers to progress requests: how far every watch of a stream is; and periodic progress.

An answer is not below what this front had told any client when the request came: a client often asks to see
that revision reached (Kubernetes, before it lists from its cache). It waits for the nodes' watermarks: a node
with subscriptions applies at once. Requests of one stream share a look, and each has an answer, as in etcd.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.routing.router import Router
    from proxy.watch.cohort import ClientWatch
    from proxy.watch.stream import WatchStream

_MOST_ANSWERS = 200  # due to a stream, further requests share one: all are sent in one turn, in some 1 ms
_A_TURN = 200  # watches that are told periodic progress, some 1 ms


class ProgressRequests:
    def __init__(self, router: Router) -> None:
        self._router = router
        # the revisions due to a stream's first and last request, and how many answers: later ones do not
        # delay the first
        self._due: dict[WatchStream, tuple[int, int, int]] = {}
        self._looking = False

    def ask(self, stream: WatchStream) -> None:
        owed = self._router.highest
        first, _, answers = self._due.get(stream, (owed, owed, 0))
        self._due[stream] = first, owed, min(answers + 1, _MOST_ANSWERS)
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
        for stream, (first, last, answers) in tuple(self._due.items()):
            told = stream.tell_progress(first)
            if told is None:
                continue
            if told and told < last:
                self._due[stream] = last, last, answers - 1
            else:
                del self._due[stream]
                if told:
                    stream.send_progress(told, answers - 1)


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

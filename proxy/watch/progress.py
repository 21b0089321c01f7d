"""Answers to progress requests: how far every watch of a stream is.

The answer is not below what this front had told any client when the request came: a client often asks to see
that revision reached (Kubernetes, before it lists from its cache). It waits for the nodes' watermarks: a node
with subscriptions applies at once. Requests of one stream share an answer: it costs two numbers here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.routing.router import Router
    from proxy.watch.stream import WatchStream


class ProgressRequests:
    def __init__(self, router: Router) -> None:
        self._router = router
        # the revisions due to a stream's first and last request: later ones do not delay the first
        self._due: dict[WatchStream, tuple[int, int]] = {}
        self._looking = False

    def ask(self, stream: WatchStream) -> None:
        owed = self._router.highest
        first, _ = self._due.get(stream, (owed, owed))
        self._due[stream] = first, owed
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
        for stream, (first, last) in tuple(self._due.items()):
            told = stream.tell_progress(first)
            if told is None:
                continue
            if told and told < last:
                self._due[stream] = last, last
            else:
                del self._due[stream]

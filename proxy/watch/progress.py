"""Answers to progress requests: how far every watch of a stream is.

A client that asks has often just been told a revision, by this front or by another, and waits for the answer
to reach it (Kubernetes does, before it lists from its cache). So the answer is not below what this front had
told anyone when the request came, as an etcd member's is not below what that member has applied. It waits for
the nodes' watermarks where it must: a node with subscriptions applies at once, and tells as soon as it has.
What another front has told may be newer: the client asks again, as it must with etcd.

Requests of one stream that wait share an answer: ten thousand of them cost what one costs. A stream that
waits holds two numbers here, however many requests it has sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.routing.router import Router
    from proxy.watch.stream import WatchStream


class ProgressRequests:
    """The streams whose requests wait for an answer."""

    def __init__(self, router: Router) -> None:
        self._router = router
        # the revisions that the first and the last request of a stream are owed: later ones do not put off
        # the first
        self._due: dict[WatchStream, tuple[int, int]] = {}
        self._looking = False

    def ask(self, stream: WatchStream) -> None:
        """A progress request of a stream."""
        owed = self._router.highest
        first, _ = self._due.get(stream, (owed, owed))
        self._due[stream] = first, owed
        self.look()

    def look(self) -> None:
        """Watermarks or watches may have moved: see at the end of this tick who can be answered."""
        if self._due and not self._looking:
            self._looking = True
            self._router.at_flush(self._answer)

    def forget(self, stream: WatchStream) -> None:
        """A stream has ended."""
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

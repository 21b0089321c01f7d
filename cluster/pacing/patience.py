"""Whether this replica can wait for news of commits (decision 26): a follower without readers says so with
its acks (``Raft.patient``), and is told within ``COMMIT_RIDES_MS``, mostly by an append."""

from __future__ import annotations

from collections.abc import Callable

from cluster.raft import Raft

COMMIT_RIDES_MS = 3
HURRY_S = 1.0  # a client that waited for this replica will soon do so again


class Patience:
    def __init__(
        self, raft: Raft, now: Callable[[], float], awaited: Callable[[], bool], watched: Callable[[], bool],
    ) -> None:
        """``awaited``: a read waits for what is applied here; ``watched``: a client looks at all of it."""
        self._raft = raft
        self._now = now
        self._awaited = awaited
        self._watched = watched
        self._hurried_until = 0.0

    def hurried(self) -> None:
        self._hurried_until = self._now() + HURRY_S

    def look(self) -> None:
        if self._awaited():
            self.hurried()
        self._raft.patient = not (self._now() < self._hurried_until or self._watched())

"""Whether this replica can wait for news of commits.

A commit costs a leader a message to each follower, and each of them a wake-up, unless an append is about to
leave that takes it along. So a follower where nobody looks says with its acks that it can wait
(``Raft.patient``), and is told within ``COMMIT_RIDES_MS`` at the latest. Where somebody watches, or a read
waits or has waited within a second, all is told at once (decision 26).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

COMMIT_RIDES_MS = 3
HURRY_S = 1.0  # who waited for this replica once will soon again


class Follower(Protocol):
    """Raft, as far as it is patient."""

    patient: bool


class Patience:
    """Of one node."""

    def __init__(
        self,
        raft: Follower,
        now: Callable[[], float],
        awaited: Callable[[], bool],
        watched: Callable[[], bool],
    ) -> None:
        """``awaited``: a read waits for what is applied here. ``watched``: somebody looks at all of it."""
        self._raft = raft
        self._now = now
        self._awaited = awaited
        self._watched = watched
        self._hurried_until = 0.0

    def hurried(self) -> None:
        """Somebody waits for what is applied here."""
        self._hurried_until = self._now() + HURRY_S

    def look(self) -> None:
        """Before a tick: has anybody come who waits?"""
        if self._awaited():
            self.hurried()
        self._raft.patient = not (self._now() < self._hurried_until or self._watched())

"""Whether this replica can wait for news of commits.

A commit costs a leader a message to each follower, and each of them a wake-up, unless an append is about to leave that takes
it along. So a follower where nobody looks says with its acks that it can wait (``Raft.patient``), and is told within
``COMMIT_RIDES_MS`` at the latest. Where somebody watches, or a read waits or has waited within a second, all is told at once
(decision 26).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from node.replica.server import Node

COMMIT_RIDES_MS = 3
HURRY_S = 1.0  # who waited for this replica once will soon again


class Patience:
    """Of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._hurried_until = 0.0

    def hurried(self) -> None:
        """Somebody waits for what is applied here."""
        self._hurried_until = self._node.loop.time() + HURRY_S

    def look(self) -> None:
        """Before a tick: has anybody come who waits?"""
        node = self._node
        if len(node.reads.waiting):
            self.hurried()
        node.raft.patient = not (
            node.watches.active or node.loop.time() < self._hurried_until or node.awaited_elsewhere()
        )

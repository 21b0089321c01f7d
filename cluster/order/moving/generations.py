"""When a sequencer may go by its table of placement (G8).

A change of the table is appended only where all before it are applied. So the table that a sequencer has
applied is that of its log's tail, or a change is under way and no attempt begins.
"""

from __future__ import annotations


class Generations:
    """Of one sequencer's term."""

    def __init__(self) -> None:
        self.number = 0  # of changes that this sequencer has appended
        #: The order index of the last one: a participant applies it first. 0: none in this term.
        self.last = 0
        self._open = False  # the last one has no order index yet
        self._applied = 0

    def appended(self) -> None:
        assert self.settled, "G8: a change is appended where all before it are applied"
        self.number += 1
        self._open = True

    def logged(self, index: int) -> None:
        """The record with what was appended is in the log."""
        if self._open:
            self.last, self._open = index, False

    def applied(self, index: int) -> None:
        """The sequencer's node has applied so much of the order."""
        self._applied = index

    @property
    def settled(self) -> bool:
        """Whether the applied table is that of the log's tail."""
        return not self._open and self._applied >= self.last

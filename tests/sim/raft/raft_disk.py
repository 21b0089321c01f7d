"""A disk that loses what was not synced, for the Raft simulator."""

from __future__ import annotations

from cluster.raft import Configuration, Entry, HardState, Ready, SnapshotPosition
from tests.raft_log import MemoryLog


class SimDisk(MemoryLog):
    """A log on a disk: ``log`` is what reads see, ``durable_log`` what a crash leaves.

    Durable is written minus ``pending``; both are kept as whole lists, which is slow and plainly right.
    """

    def __init__(self, configuration: Configuration) -> None:
        super().__init__(configuration)
        self.durable_hard, self.durable_position = self.hard, self.position
        self.durable_log: list[Entry] = []
        self.pending: list[tuple[int, HardState | None, list[Entry]]] = []

    # what a driver does
    def write(self, ready: Ready) -> None:
        super().write(ready)
        self.pending.append((ready.sequence, ready.hard_state, ready.entries))

    def sync(self, sequence: int) -> None:
        """Everything written with ``sequence`` or before is now durable."""
        while self.pending and self.pending[0][0] <= sequence:
            self._make_durable()

    def sync_all(self) -> None:
        """Everything written is now durable."""
        while self.pending:
            self._make_durable()

    def _make_durable(self) -> None:
        _, hard, entries = self.pending.pop(0)
        if hard is not None:
            self.durable_hard = hard
        if not entries:
            return
        keep = entries[0].index - self.durable_position.index - 1
        if keep < 0:  # written before the log began later
            entries = entries[-keep:]
            keep = 0
        if entries:
            assert keep <= len(self.durable_log), "a gap in the log"
            self.durable_log[keep:] = entries

    def crash(self, survivors: int) -> None:
        """The first ``survivors`` of the pending writes had reached the disk, the others are lost."""
        for _ in range(survivors):
            self._make_durable()
        self.pending.clear()
        self.hard, self.position, self.log = self.durable_hard, self.durable_position, list(self.durable_log)

    def compact(self, position: SnapshotPosition) -> None:
        """Drop a prefix, synced."""
        super().compact(position)
        self.durable_log = self.durable_log[position.index - self.durable_position.index :]
        self.durable_position = position

    def reset(self, position: SnapshotPosition) -> None:
        """Begin anew after a snapshot, synced; everything written before is synced with it."""
        self.sync_all()
        super().reset(position)
        self.durable_log, self.durable_position = [], position

    # questions of the checker
    @property
    def durable_last(self) -> int:
        return self.durable_position.index + len(self.durable_log)

    def holds(self, index: int, term: int) -> bool:
        """Whether the entry of that index and term would survive a crash now."""
        start = self.durable_position.index
        if index <= start:
            return index < start or term == self.durable_position.term
        return index <= self.durable_last and self.durable_log[index - start - 1].term == term

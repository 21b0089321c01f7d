"""A disk that loses what was not synced, for the Raft simulator."""

from __future__ import annotations

from cluster.raft import Configuration, Entry, HardState, Ready, SnapshotPosition


class SimDisk:
    """A log on a disk: ``written`` is what reads see, ``durable`` what a crash leaves.

    Durable is written minus ``pending``; both are kept as whole lists, which is slow and plainly right.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.hard = self.durable_hard = HardState(0, 0, 0)
        self.position = self.durable_position = SnapshotPosition(0, 0, configuration)
        self.log: list[Entry] = []
        self.durable_log: list[Entry] = []
        self.pending: list[tuple[int, HardState | None, list[Entry]]] = []

    # LogStorage
    def hard_state(self) -> HardState:
        return self.hard

    def snapshot_position(self) -> SnapshotPosition:
        return self.position

    def last_index(self) -> int:
        return self.position.index + len(self.log)

    def term(self, index: int) -> int:
        assert self.position.index < index <= self.last_index()
        return self.log[index - self.position.index - 1].term

    def entries(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        found = self.log[first - self.position.index - 1 : last - self.position.index]
        size = 0
        for i, entry in enumerate(found):
            size += len(entry.data)
            if i and size > max_bytes:
                return found[:i]
        return found

    # what a driver does
    def write(self, ready: Ready) -> None:
        if ready.hard_state is not None:
            self.hard = ready.hard_state
        if ready.entries:
            self._splice(self.log, self.position.index, ready.entries)
        self.pending.append((ready.sequence, ready.hard_state, ready.entries))

    @staticmethod
    def _splice(log: list[Entry], start: int, entries: list[Entry]) -> None:
        keep = entries[0].index - start - 1
        if keep < 0:  # written before the log began later
            entries = entries[-keep:]
            keep = 0
        if entries:
            assert keep <= len(log), "a gap in the log"
            log[keep:] = entries

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
        if entries:
            self._splice(self.durable_log, self.durable_position.index, entries)

    def crash(self, survivors: int) -> None:
        """The first ``survivors`` of the pending writes had reached the disk, the others are lost."""
        for _ in range(survivors):
            self._make_durable()
        self.pending.clear()
        self.hard, self.position, self.log = self.durable_hard, self.durable_position, list(self.durable_log)

    def compact(self, position: SnapshotPosition) -> None:
        """Drop a prefix, synced."""
        self.log = self.log[position.index - self.position.index :]
        self.durable_log = self.durable_log[position.index - self.durable_position.index :]
        self.position = self.durable_position = position

    def reset(self, position: SnapshotPosition) -> None:
        """Begin anew after a snapshot, synced; everything written before is synced with it."""
        self.sync_all()
        self.log, self.durable_log = [], []
        self.position = self.durable_position = position

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

"""A Raft log in memory, written as a driver of ``cluster.raft`` writes one.

Tests of one rule use it as it is. Disks that lose what was not synced are
``tests.sim.raft.raft_disk`` and ``tests.sim.disks.order_disk``.
"""

from __future__ import annotations

from cluster.raft import Configuration, Entry, HardState, Raft, Ready, SnapshotPosition


def nothing_left(raft: Raft) -> Ready | None:
    """What a replica that says that nothing has come would still have to do: None, if it is right."""
    raft._due = True
    return raft.ready()


class MemoryLog:
    """What reads see at once."""

    def __init__(self, configuration: Configuration) -> None:
        self.hard = HardState(0, 0, 0)
        self.note = (0, 0)
        self.position = SnapshotPosition(0, 0, configuration)
        self.log: list[Entry] = []

    # LogStorage
    def hard_state(self) -> HardState:
        return self.hard

    def committed(self) -> tuple[int, int]:
        return self.note

    def snapshot_position(self) -> SnapshotPosition:
        return self.position

    def last_index(self) -> int:
        return self.position.index + len(self.log)

    def term(self, index: int) -> int:
        assert self.position.index < index <= self.last_index()
        return self.log[index - self.position.index - 1].term

    def term_at(self, index: int) -> int | None:
        if index == self.position.index:
            return self.position.term
        return self.term(index) if self.position.index < index <= self.last_index() else None

    def entries(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        found = self.log[first - self.position.index - 1 : last - self.position.index]
        assert found
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
            keep = ready.entries[0].index - self.position.index - 1
            assert 0 <= keep <= len(self.log), "a gap in the log"
            self.log[keep:] = ready.entries

    def compact(self, position: SnapshotPosition) -> None:
        """Drop a prefix."""
        self.log = self.log[position.index - self.position.index :]
        self.position = position

    def reset(self, position: SnapshotPosition) -> None:
        """Begin anew after a snapshot."""
        self.log = []
        self.position = position

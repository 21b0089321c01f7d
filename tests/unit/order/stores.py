"""What tests of a shard's leader stand on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cluster.evaluate.view import Current
from cluster.features.auth.permissions import Ranges
from cluster.order.leading.shard_batch import Answer
from cluster.order.leading.shard_leader import ShardLeader, Start
from cluster.pacing.pace import Pace
from cluster.wire.messages import HEAD, Status


class EmptyStore:
    """The applied state of a shard that holds nothing yet, at revision 7. ``leases``: whether every lease is
    there."""

    revision = 7
    compact_revision = 0

    def __init__(self, *, leases: bool = False) -> None:
        self._leases = leases

    def current(self, key: bytes) -> Current | None:
        return None

    def get(self, key: bytes, revision: int = 0) -> bytes | None:
        return None

    def scan(
        self, start: bytes, end: bytes, revision: int = 0, look: int = 0
    ) -> Iterator[tuple[bytes, bytes]]:
        return iter(())

    def live_count(self, start: bytes, end: bytes) -> int:
        return 0

    def lease(self, lease: int) -> tuple[int, int] | None:
        return (60, 0) if self._leases else None

    def lease_keys(self, lease: int, limit: int = 0, *, but: Ranges | None = None) -> list[bytes]:
        return []


def leader(pace: Pace | None = None, *, leases: bool = False, since: int = 0) -> ShardLeader[str]:
    """A leader of shard 1, at term 3, that serves; a sequencer's record of term 2 is applied.
    ``since``: the order index before it."""
    found: ShardLeader[str] = ShardLeader(
        EmptyStore(leases=leases), 1, 3, Start(5, 0, since), max_txn_ops=128, pace=pace)
    found.applied_records([(since + 1, 2, [])])
    found.serve()
    return found


def answers(leader: ShardLeader[Any]) -> list[Answer]:
    """Everything that it answers now: first plain puts of entries that held nothing else."""
    puts = [(put[0], int(Status.OK), HEAD.pack(revision, leader.term))
            for some, before in leader.take_puts() for revision, put in enumerate(some, before + 1)]
    return puts + leader.take_answers()

"""Which order records must be kept: how far each host's nodes have applied the order durably (I17, decision
44).

No host drops a record that finished flushes of a *majority* of each shard's replicas do not cover: it may be
the only copy of a transaction's writes. What a majority has is kept for the own host's nodes besides, within
a bound; a node further behind installs a state.

A host's nodes tell their node 0 (FEED_ACK), and node 0s tell each other with frame ``D``: a u64 for each
shard from 1 on; when one has moved, and now and then, for it may be lost. 0: nothing is known since that node
0's start. A host that is down counts with its last word, which its disks still have.

Records in files (``node.upkeep.space.keeping``) count as applied: from version 9 on frame ``D`` says the
first and the last of them, too. A change of members counts no files: they go once a majority of the *old*
voters has applied their end.
"""

from __future__ import annotations

import struct
from collections.abc import Collection

from cluster.order.passing import PASSED_SINCE
from cluster.wire.frames import PeerKind

FRAME = PeerKind.FLOORS.byte
REPEAT_S = 2.0


class Floors:
    """Of one node 0."""

    def __init__(self, member_id: int, shard_count: int) -> None:
        self._member_id = member_id
        self._shards = shard_count - 1
        self._body = struct.Struct(f"<{self._shards}Q")
        self._with_files = struct.Struct(f"<{3 * self._shards}Q")
        self._said: dict[int, list[int]] = {member_id: [0] * self._shards}
        # first and last record in files, by shards; (0, 0): there are none
        self._kept: dict[int, list[tuple[int, int]]] = {member_id: [(0, 0)] * self._shards}
        self.begins = 0  # the last record that this host's order log has dropped

    def own_is(self, shard: int, durable: int) -> None:
        self.own()[shard - 1] = durable

    def own_keeps(self, shard: int, first: int, last: int) -> None:
        self._kept[self._member_id][shard - 1] = first, last

    def encode(self, version: int = 0) -> bytes:
        """What this host's nodes have, for other hosts' node 0s."""
        if version < PASSED_SINCE:
            return self._body.pack(*self.own())
        kept = [index for span in self._kept[self._member_id] for index in span]
        return self._with_files.pack(*self.own(), *kept)

    def came(self, member_id: int, data: bytes) -> None:
        """Another host's node 0 said what its nodes have. ValueError if it makes no sense."""
        if len(data) == self._with_files.size:
            said = self._with_files.unpack(data)
            kept = said[self._shards :]
            self._kept[member_id] = list(zip(kept[::2], kept[1::2], strict=True))
        elif len(data) == self._body.size:
            said = self._body.unpack(data)
            self._kept.pop(member_id, None)
        else:
            raise ValueError("a frame of floors of a wrong size")
        self._said[member_id] = list(said[: self._shards])

    def own(self) -> list[int]:
        """What this host's nodes have durably applied, of shard 1 first (0: has never said)."""
        return self._said[self._member_id]

    def of_majority(self, voters: Collection[int]) -> tuple[int, int]:
        """What a majority of the replicas of every shard has durably applied, or keeps in files with this
        host; and the shard with the least."""
        found = []
        for shard in range(1, self._shards + 1):
            applied = self.durable(shard, voters)
            # files need not hold what a majority has applied, or this host has dropped before
            base = max(self.begins, applied)
            kept = min(_majority([self._reach(v, shard, base) for v in voters]),
                       self._reach(self._member_id, shard, base))
            found.append((max(applied, kept), shard))
        return min(found)

    def on_disk(self, voters: Collection[int]) -> int:
        """What a majority of these hosts' replicas of every shard has durably applied."""
        return min(self.durable(shard, voters) for shard in range(1, self._shards + 1))

    def durable(self, shard: int, voters: Collection[int]) -> int:
        """What a majority of one shard's replicas has durably applied."""
        return _majority([self._durable(voter, shard) for voter in voters])

    def _durable(self, voter: int, shard: int) -> int:
        said = self._said.get(voter)
        return said[shard - 1] if said is not None else 0

    def _reach(self, voter: int, shard: int, base: int) -> int:
        """How far a host has all that is behind ``base``, applied or in files."""
        applied, kept = self._durable(voter, shard), self._kept.get(voter)
        first, last = kept[shard - 1] if kept is not None else (0, 0)
        return max(applied, last) if 0 < first <= max(base, applied) + 1 else applied

    def kept_after(self, least: int, voters: Collection[int]) -> int:
        """The order record after which all must be kept; ``least``: for this host's nodes alone none up to
        there."""
        # a node that has not said yet, since this node's start, may want all within the bound
        wanted = [durable or least for durable in self.own() if durable >= least or not durable]
        return min([self.of_majority(voters)[0], *wanted])


def _majority(hosts: list[int]) -> int:
    """What most of them have at least."""
    return sorted(hosts, reverse=True)[len(hosts) // 2]

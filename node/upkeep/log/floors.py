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
voters has applied their end. Shards that were born follow in the frame, each with its id. So does shard 0, on
links that know of moves: what moved there is in no log, and a change of members asks who has it.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable

from cluster.wire.frames import MOVES_SINCE, PASSED_SINCE, PeerKind

FRAME = PeerKind.FLOORS.byte
REPEAT_S = 2.0
_BORN = struct.Struct("<HQQQ")  # shard, durably applied, first and last record in files
_NO_FILES = (0, 0)
_ALL = 1 << 62  # more than any order index


class Floors:
    """Of one node 0."""

    def __init__(self, member_id: int, shard_count: int) -> None:
        """``shard_count``: of the base; others are born later (:meth:`follow`)."""
        self._member_id = member_id
        self._base = shard_count
        self._shards: tuple[int, ...] = tuple(range(1, shard_count))
        # by host, then by shard
        self._said: dict[int, dict[int, int]] = {member_id: {}}
        # first and last record in files; a shard without files has no row
        self._kept: dict[int, dict[int, tuple[int, int]]] = {member_id: {}}
        self.begins = 0  # the last record that this host's order log has dropped

    def follow(self, shards: Iterable[int]) -> None:
        """The cluster has these shards now."""
        self._shards = tuple(sorted(shard for shard in shards if shard))

    @property
    def shards(self) -> tuple[int, ...]:
        return self._shards

    def own_is(self, shard: int, durable: int) -> None:
        self._said[self._member_id][shard] = durable

    def own_keeps(self, shard: int, first: int, last: int) -> None:
        self._kept[self._member_id][shard] = first, last

    def own_of(self, shard: int) -> int:
        """What this host's node of a shard has durably applied; 0: it has never said."""
        return self._said[self._member_id].get(shard, 0)

    def encode(self, version: int = 0) -> bytes:
        """What this host's nodes have, for other hosts' node 0s. Of shards that were born: only on links of
        versions that know them."""
        base = range(1, self._base)
        if version < PASSED_SINCE:
            return struct.pack(f"<{len(base)}Q", *map(self.own_of, base))
        kept = self._kept[self._member_id]
        spans = [index for shard in base for index in kept.get(shard, _NO_FILES)]
        born = [
            _BORN.pack(shard, self.own_of(shard), *kept.get(shard, _NO_FILES))
            for shard in (0, *self._shards) if shard >= self._base or (not shard and version >= MOVES_SINCE)]
        return struct.pack(f"<{3 * len(base)}Q", *map(self.own_of, base), *spans) + b"".join(born)

    def came(self, member_id: int, data: bytes) -> None:
        """Another host's node 0 said what its nodes have. ValueError if it makes no sense."""
        base = range(1, self._base)
        size = 8 * len(base)
        if len(data) == size:
            self._said[member_id] = dict(zip(base, struct.unpack(f"<{len(base)}Q", data), strict=True))
            self._kept.pop(member_id, None)
            return
        if len(data) < 3 * size or (len(data) - 3 * size) % _BORN.size:
            raise ValueError("a frame of floors of a wrong size")
        said = struct.unpack_from(f"<{3 * len(base)}Q", data)
        kept = said[len(base) :]
        self._said[member_id] = dict(zip(base, said, strict=False))
        self._kept[member_id] = dict(zip(base, zip(kept[::2], kept[1::2], strict=True), strict=True))
        for shard, durable, first, last in _BORN.iter_unpack(data[3 * size :]):
            self._said[member_id][shard] = durable
            self._kept[member_id][shard] = first, last

    def own(self) -> list[int]:
        """What this host's nodes have durably applied, of the lowest shard first (0: has never said)."""
        return [self.own_of(shard) for shard in self._shards]

    def of_majority(self, voters: Collection[int]) -> tuple[int, int]:
        """What a majority of the replicas of every shard has durably applied, or keeps in files with this
        host; and the shard with the least. Without other shards: all."""
        found = []
        for shard in self._shards:
            applied = self.durable(shard, voters)
            # files need not hold what a majority has applied, or this host has dropped before
            base = max(self.begins, applied)
            kept = min(_majority([self._reach(v, shard, base) for v in voters]),
                       self._reach(self._member_id, shard, base))
            found.append((max(applied, kept), shard))
        return min(found, default=(_ALL, 0))

    def on_disk(self, voters: Collection[int]) -> int:
        """What a majority of these hosts' replicas of every shard has durably applied."""
        return min((self.durable(shard, voters) for shard in self._shards), default=_ALL)

    def durable(self, shard: int, voters: Collection[int]) -> int:
        """What a majority of one shard's replicas has durably applied."""
        return _majority([self._durable(voter, shard) for voter in voters])

    def _durable(self, voter: int, shard: int) -> int:
        return self._said.get(voter, {}).get(shard, 0)

    def _reach(self, voter: int, shard: int, base: int) -> int:
        """How far a host has all that is behind ``base``, applied or in files."""
        applied, kept = self._durable(voter, shard), self._kept.get(voter)
        first, last = kept.get(shard, _NO_FILES) if kept is not None else _NO_FILES
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

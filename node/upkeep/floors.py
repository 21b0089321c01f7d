"""Which order records must be kept: how far each host's nodes have applied the order durably (I17).

An order record may be all that there is of what it did to a shard: the writes of a transaction over several
shards stand nowhere else, nor does an entry's place in the order. So nobody drops a record that finished
flushes of a *majority* of each shard's replicas do not cover. Whoever is left after the loss of a minority
then has the records that its replicas want, or a state that is further on, for however long a shard had no
quorum. What a majority has is kept for the own host's nodes besides, within a bound; who falls behind that
installs a state.

A host's nodes tell their node 0 (FEED_ACK), and node 0s tell each other with frame ``D``: a u64 for each
shard from 1 on; when one has moved, and now and then, for it may be lost. The last word counts. 0: nothing is
known since that node 0's start. A host that is down counts with what it said last, which its disks still
have.
"""

from __future__ import annotations

import struct
from collections.abc import Collection

from cluster.wire.frames import PeerKind

FRAME = PeerKind.FLOORS.byte
REPEAT_S = 2.0


class Floors:
    """Of one node 0."""

    def __init__(self, member_id: int, shard_count: int) -> None:
        self._member_id = member_id
        self._body = struct.Struct(f"<{shard_count - 1}Q")
        self._said: dict[int, list[int]] = {member_id: [0] * (shard_count - 1)}

    def own_is(self, shard: int, durable: int) -> None:
        """This host's node of a shard said how far it is."""
        self.own()[shard - 1] = durable

    def encode(self) -> bytes:
        """What this host's nodes have, for other hosts' node 0s."""
        return self._body.pack(*self.own())

    def came(self, member_id: int, data: bytes) -> None:
        """Another host's node 0 said what its nodes have. ValueError if that is not what was sent."""
        if len(data) != self._body.size:
            raise ValueError("a frame of floors of a wrong size")
        self._said[member_id] = list(self._body.unpack(data))

    def own(self) -> list[int]:
        """What this host's nodes have durably applied, of shard 1 first, also those that are down now (0: has
        never said)."""
        return self._said[self._member_id]

    def of_majority(self, voters: Collection[int]) -> tuple[int, int]:
        """What a majority of the replicas of every shard has durably applied, and the shard with the
        least."""
        nothing = [0] * len(self.own())
        shards = zip(*(self._said.get(voter, nothing) for voter in voters), strict=True)
        return min(
            (sorted(hosts, reverse=True)[len(hosts) // 2], shard) for shard, hosts in enumerate(shards, 1)
        )

    def kept_after(self, least: int, voters: Collection[int]) -> int:
        """The order record after which all must be kept; ``least``: for this host's nodes alone none up to
        there."""
        # who has not said yet, since this node's start, what it wants may want all within the bound
        wanted = [durable or least for durable in self.own() if durable >= least or not durable]
        return min([self.of_majority(voters)[0], *wanted])

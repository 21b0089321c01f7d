"""Batches that a shard's leader logged in a term that it has lost: their answers wait until their fate is known.

The first cut of a later term decides them all: what is at or below it, with its own term, is done; the rest is lost for
certain, and the fronts may send it again (I23).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster import errors
from cluster.errors import EtcdError
from cluster.order.leading.shard_batch import ShardBatch
from cluster.order.log import Cut
from cluster.wire.messages import Status
from node.replica.shards.linked import not_leader

if TYPE_CHECKING:
    from node.replica.server import Node


class Fates:
    """Of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._open: dict[tuple[int, int], ShardBatch] = {}  # by index and term, which name an entry (Raft)

    def __len__(self) -> int:
        return len(self._open)

    def keep(self, index: int, term: int, batch: ShardBatch) -> None:
        """A batch of a term that was just lost, logged there.

        Another one may have been kept of that place, in an earlier term, which this log has lost since. That decides
        nothing: of five hosts a minority may have it still, and bring it back (figure 8 of the Raft paper).
        """
        self._open[index, term] = batch

    def decide(self, cut: Cut, before: dict[int, int]) -> None:
        """A cut was applied; ``before``: the revision before each entry that it put in order."""
        node = self._node
        for (index, term), batch in sorted(self._open.items()):
            if index <= cut.index and index in before and node.log.term(index) == term:
                for (link, rid), status, body in batch.answers(before[index], term):
                    node.past.deliver(link, rid, status, body, term)
                    node._mark_dirty(link)
            elif cut.term > term or index <= cut.index:
                for token in batch.owed():
                    not_leader(node, *token)
            else:
                continue
            del self._open[index, term]

    def skipped_to(self, applied: int) -> None:
        """A snapshot replaced everything up to there: nobody here can tell any more whether it was committed (I23: so not
        "resend")."""
        for place in [place for place in self._open if place[0] <= applied]:
            for link, rid in self._open.pop(place).owed():
                link.answer(rid, Status.UNKNOWN, EtcdError(errors.TIMEOUT_DUE_TO_LEADER_FAIL).encode())
                self._node._mark_dirty(link)

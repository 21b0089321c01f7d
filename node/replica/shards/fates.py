"""Batches that a shard's leader logged in a term that it has lost: their answers wait for their fate.

The first cut of a later term decides them all. An entry at or below it, with its own term, is done. The
rest is certainly lost, and the fronts may send it again (I23).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cluster import errors
from cluster.errors import EtcdError
from cluster.order.leading.shard_batch import ShardBatch
from cluster.order.log import Cut
from cluster.pipeline.under_way import UnderWay
from cluster.wire.messages import Status
from node.replica.shards.linked import RoleNode, not_leader

if TYPE_CHECKING:
    from node.serving.txns.past import Past
    from node.storage import RaftLog


class FatesNode(RoleNode, Protocol):
    log: RaftLog
    past: Past


class Fates:
    def __init__(self, node: FatesNode) -> None:
        self._node = node
        self._open: UnderWay[ShardBatch] = UnderWay()

    def __len__(self) -> int:
        return len(self._open)

    def keep(self, index: int, term: int, batch: ShardBatch) -> None:
        """A batch that was logged in a term that has just been lost.

        A batch of an earlier lost term may be kept at the same index. That decides nothing: a minority of
        five hosts may still have it, and bring it back (figure 8 of the Raft paper).
        """
        batch.shown = self._node.past.shown()
        self._open.logged(index, term, batch)

    def decide(self, cut: Cut, before: dict[int, int]) -> None:
        """A cut was applied. ``before``: the revision before each entry that it put in order."""
        node = self._node

        def term_at(index: int) -> int:
            assert index in before, f"I23: entry {index} was in order before, and its fate was not told"
            return node.log.term(index)

        for own, done in self._open.applied(cut.index, cut.term, term_at):
            if done:
                for (link, rid), status, body in own.answers(before[own.index], own.term):
                    node.past.deliver(link, rid, status, body, own.term)
                    node.mark_dirty(link)
            else:
                for token in own.owed():
                    not_leader(node, *token)

    def skipped_to(self, applied: int) -> None:
        """A snapshot replaced everything up to ``applied``, and does not show whether a batch was
        committed: the answer is "unknown", not "resend" (I23)."""
        passed = self._open.skipped_to(applied)
        leaders = {batch.bound for batch in passed}
        # what later ones of the same leaders show may be of these
        later = [batch for batch in self._open.entries if batch.bound in leaders]
        self._open.drop(later)
        for batch in passed + later:
            for link, rid in batch.owed():
                link.answer(rid, Status.UNKNOWN, EtcdError(errors.TIMEOUT_DUE_TO_LEADER_FAIL).encode())
                self._node.mark_dirty(link)

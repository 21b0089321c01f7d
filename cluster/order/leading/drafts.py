"""A transaction of very many operations at the leader of a shard other than 0, evaluated ahead of its turn.

As on shard 0 (``cluster.evaluate.txns.draft``), but pending revisions are unknown. So the steps are taken
while nothing that it touches is pending. What cannot be decided even so is left to the turn.
"""

from __future__ import annotations

from typing import Any

from cluster.evaluate.footprint import shows_the_past
from cluster.evaluate.steps import Steps, finish
from cluster.evaluate.txns.draft import Draft, large
from cluster.evaluate.view import Outcome
from cluster.order.leading.pending import Blocked, Elsewhere, PendingOverlay


class ShardDraft(Draft):
    def __init__(self, view: PendingOverlay, request: Any, max_ops: int) -> None:
        super().__init__(view, request, max_ops)
        self._blocked = False  # something that it touches was pending

    def _begin(self) -> None:
        self._since, self._batch = self._view.applied.revision, 0
        if any(map(self._touches, self._view.written_since(0))):
            raise Blocked
        self._view.settled(self._around, self._spans)

    def _evaluate(self) -> Steps[None]:
        try:
            yield from super()._evaluate()
        except Blocked:
            self._moved = self._blocked = True
        except Elsewhere:
            self.fit = False  # the turn says so

    def outcome(self) -> Outcome | None:
        """As of :class:`Draft`; but Blocked, not NotYet: something that it touches is pending."""
        if self._blocked:
            self._blocked = False
            raise Blocked
        return super().outcome()


def draft_of(view: PendingOverlay, body: bytes, max_ops: int) -> Draft | None:
    """What of a transaction is to be done ahead of its turn, before that is tried. EtcdError."""
    request: Any = large(body)
    # of the past is read in the turn: a compaction may come before it in the order of all shards
    past = request is not None and finish(shows_the_past(request))
    return None if request is None or past else ShardDraft(view, request, max_ops)

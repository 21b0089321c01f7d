"""A transaction of very many operations over several shards, evaluated ahead of its turn.

As on one shard (``cluster.evaluate.txns.draft``), once all of its shards have granted it. What they hold of
its keys is locked and does not change; what shard 0 holds of them may, and is looked at in the turn. Ranges,
and reads at a revision that is named, may need more than was granted: such a transaction is evaluated in one
turn.
"""

from __future__ import annotations

from typing import Any

from cluster.evaluate.footprint import Footprint
from cluster.evaluate.steps import Steps
from cluster.evaluate.txns.draft import Draft, large
from cluster.wire.messages import Method


class WideDraft(Draft):
    """Of one attempt: on shard 0's state, and seeing what was granted (``GrantedView``)."""

    def _evaluate(self) -> Steps[None]:
        if self._revisions:  # that it reads at
            self.fit = False
        else:
            yield from super()._evaluate()


def large_of(method: int, body: bytes, wanted: Footprint) -> Any | None:
    """The request, parsed, if it is evaluated ahead. EtcdError."""
    return large(body) if method == Method.TXN and wanted.single else None

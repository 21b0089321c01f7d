"""Parts of leases' ends, as their leaders say: in the log they look like clients' deletes of the same keys.

A part of a multi is known by its attempt, one of an only shard by the term and the revision that its leader
gave. Whoever took for a part what looks like one would take a client's delete for it, and find no owner.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from cluster.evaluate.replica import Leader
from cluster.order.log import Attempt
from cluster.order.sequencing.evaluator import Evaluator


@dataclass
class Parts:
    multis: dict[Attempt, int] = field(default_factory=dict)  # their lease
    alone: set[tuple[int, int]] = field(default_factory=set)  # term, revision

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """As long as this lasts leaders say which parts they evaluate."""
        evaluator: Any = Evaluator
        leader: Any = Leader
        revoke, take = evaluator._revoke, leader._take

        def revokes(of: Any, view: Any, wide: Any, attempt: Attempt, participants: Any) -> Any:
            item, outcome = revoke(of, view, wide, attempt, participants)
            self.multis.pop(attempt, None)
            if wide.left and not outcome.revoked:
                self.multis[attempt] = wide.left[0]
            return item, outcome

        def takes(of: Any, outcome: Any) -> None:
            take(of, outcome)
            if outcome.part:
                self.alone.add((of.term, of.view.revision))

        evaluator._revoke, leader._take = revokes, takes
        try:
            yield
        finally:
            evaluator._revoke, leader._take = revoke, take

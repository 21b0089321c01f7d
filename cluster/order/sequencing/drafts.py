"""What of a transaction of very many operations over several shards is done ahead of its turns.

Before admission its keys are found (:class:`Survey`); with all grants it is evaluated and cut up into the
parts of its multi (:class:`WideDraft`). Keys of shard 0 may change, and are looked at in the turn. One turn
evaluates what compares ranges, shows rows of the past, or needs more than was granted.
"""

from __future__ import annotations

from typing import Any, TypeVar

from cluster.evaluate.footprint import Footprint, add_txn, shows_the_past, valued
from cluster.evaluate.overlay import Overlay
from cluster.evaluate.steps import STEP_OPS, Steps
from cluster.evaluate.txns.draft import Draft
from cluster.evaluate.txns.range_compares import add_compares
from cluster.order.log import Part
from cluster.order.prepare import Touch
from cluster.order.sequencing.granted import GrantedView, Uncounted, Unread
from cluster.order.sequencing.parts import parts_in_steps
from cluster.order.sequencing.wide import Wide
from cluster.placement import Placement

T = TypeVar("T")


class Survey:
    """What a TxnRequest touches. It is asked of the shards each time that it starts again."""

    def __init__(self, request: Any, placement: Placement) -> None:
        self._request = request
        self._placement = placement
        self._footprint = Footprint()
        self._compares: dict[bytes, Any] = {}
        self._past = False  # it shows rows of a revision that it names
        self._touches: dict[int, list[Touch]] = {}
        self._by = 0  # the table of placement that it goes by

    def steps(self) -> Steps[None]:
        yield from add_txn(self._footprint, self._request)
        yield from add_compares(self._compares, self._request)
        self._past = yield from shows_the_past(self._request)
        footprint, placement = self._footprint, self._placement.pinned()
        shard_of, self._by = placement.shard_of, placement.table.generation
        if self._past or not footprint.single:
            return
        yield
        values = yield from valued(self._request)
        written = dict.fromkeys(footprint.writes)
        read = dict.fromkeys(span for span in footprint.reads if span not in written)
        for write, spans in ((True, written), (False, read)):
            for place, (key, _) in enumerate(spans, 1):
                if not place % STEP_OPS:
                    yield
                if shard := shard_of(key):
                    self._touches.setdefault(shard, []).append(
                        Touch(key, b"", write, brief=(key, b"") not in values))

    def tell(self, wide: Wide[T]) -> None:
        wide.footprint, wide.compares = self._footprint, list(self._compares.values())
        if not self._past and not self._compares:
            wide.large = self._request
            wide.surveyed = self._touches if self._footprint.single else None
            wide.surveyed_by = self._by


class WideDraft(Draft):
    def __init__(
        self, view: Overlay, request: Any, max_ops: int, sees: GrantedView, placement: Placement
    ) -> None:
        super().__init__(view, request, max_ops, sees)
        self._granted = sees
        self._placement = placement
        self._parts: list[Part] | None = None

    def _evaluate(self) -> Steps[None]:
        try:
            yield from super()._evaluate()
            if self._outcome is not None:
                items = self._outcome.items
                self._parts = yield from parts_in_steps(self._granted, self._placement, 0, items)
        except (Uncounted, Unread):
            self.fit = False  # its turn asks for what it needs

    def _is_own(self, key: bytes) -> bool:
        return self._placement.shard_of(key) == 0

    @property
    def parts(self) -> list[Part] | None:
        """Of its effect; None: it is evaluated in one turn."""
        return self._parts if self.fit else None

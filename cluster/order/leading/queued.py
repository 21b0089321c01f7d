"""What waits at a shard's leader, and its reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from cluster.evaluate.replica import Ahead
from cluster.evaluate.txns.range_compares import RangeCompares
from cluster.features.auth.principal import Principal
from cluster.order.prepare import Prepare
from cluster.order.sequencing.granted import RowsOf

T = TypeVar("T")


@dataclass(slots=True)
class Waiting(Generic[T]):
    token: T
    method: int
    body: bytes
    batch: int = 0  # must be applied before it is tried again
    looked: Ahead | None = None
    who: Principal | None = None  # asks, if that was said


@dataclass(slots=True)
class Preparing(Generic[T]):
    token: T
    prepare: Prepare
    batch: int = 0  # what must be applied before it is answered (H1)
    answer: bytes | None = None
    looked: RangeCompares | None = None
    rows: RowsOf | None = None  # that its grant shows, if they were read ahead
    too_large: bool = False  # they are


@dataclass(slots=True, frozen=True)
class Report:
    """What this leader has committed; state, not an event: sent until the feed shows it."""

    shard: int
    index: int
    term: int
    count: int
    applied_order: int  # as far as it counts (cluster.order.leading.rights)
    urgent: bool = False  # that is news

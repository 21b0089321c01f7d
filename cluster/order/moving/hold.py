"""What waits where shard 0 is the source of a move: its writes have no lock table.

From a switch's beginning on, no write of shard 0 that touches the moved span is evaluated. After the switch
the hold lasts until its record is applied here: then what is held goes to the new owner. An end of leases is
no write of one shard: it breaks the hold, and the switch starts over.
"""

from __future__ import annotations

from collections.abc import Iterable

from cluster.errors import EtcdError
from cluster.evaluate.footprint import Footprint, footprint, overlap
from cluster.evaluate.spans import Span


class Hold:
    """Of one switch."""

    def __init__(self, span: Span, revision: int) -> None:
        """``revision``: of the log's tail. From there on nothing is written to the span."""
        self.span = span
        self.revision = revision
        self.broken = False  # G4

    def holds(self, method: int, body: bytes) -> bool:
        """Whether a write has to wait. What is malformed does not: it is refused in its turn."""
        try:
            wanted = footprint(method, body)
        except EtcdError:
            return False
        return self.meets(wanted)

    def meets(self, wanted: Footprint) -> bool:
        span = self.span
        return any(overlap(span, other) for other in (*wanted.writes, *wanted.reads))

    def written(self, keys: Iterable[bytes]) -> None:
        """A transaction over several shards writes these."""
        self.broken = self.broken or any(overlap(self.span, (key, b"")) for key in keys)

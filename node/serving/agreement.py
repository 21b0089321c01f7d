"""Which keys a read asks for, and whether two tables of placement agree about them (G7)."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.errors import EtcdError
from cluster.evaluate.footprint import footprint
from cluster.placement import Table
from cluster.wire.messages import Method

_RANGES = frozenset(map(int, (Method.RANGE, Method.RANGE_STREAM, Method.RANGE_ROWS, Method.STREAM_ROWS)))
# each shard tells of all that it owns
_WHOLE = frozenset(map(int, (Method.LEASE_KEYS, Method.HASH_KV, Method.AUTH_SHOW)))
Span = tuple[bytes, bytes]
_EVERYTHING: Sequence[Span] = ((b"\0", b"\0"),)


def agree(mine: Table, theirs: Table | None, method: int, request: bytes) -> bool:
    """``theirs`` None: the table of the beginning."""
    other = Table.initial(mine.base) if theirs is None else theirs
    return all(mine.agrees(other, *span) for span in _spans(method, request))


def _spans(method: int, request: bytes) -> Sequence[Span]:
    if method in _WHOLE:
        return _EVERYTHING
    if method != Method.READ_TXN and method not in _RANGES:
        return ()
    try:
        return footprint(Method.RANGE if method in _RANGES else method, request).reads
    except EtcdError:
        return ()  # it is refused in its turn

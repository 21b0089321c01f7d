"""What was done to the tree since it was made, as etcd counts it: up to 2^64.

The row ``c`` holds the low halves, as it did when there were no others. The row ``C`` comes before it once a
count has a high half. A host of a version before keeps that row, and reads the index as ever.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from cluster.features.rows import Row

COUNTED = (
    "setsSuccess", "setsFail", "deleteSuccess", "deleteFail", "updateSuccess", "updateFail",
    "createSuccess", "createFail", "compareAndSwapSuccess", "compareAndSwapFail",
    "compareAndDeleteSuccess", "compareAndDeleteFail", "expireCount",
)
COUNTER_ROW, HIGH_ROW = b"c", b"C"
_COUNTS = struct.Struct(f"<Q{len(COUNTED)}I")
_HIGHS = struct.Struct(f"<{len(COUNTED)}I")
_LOW = 0xFFFFFFFF


def counter_rows(index: int, counts: Sequence[int]) -> list[Row]:
    """The rows of an index and its counts, ``c`` last."""
    rows: list[Row] = []
    if max(counts) > _LOW:
        rows.append((HIGH_ROW, _HIGHS.pack(*[count >> 32 & _LOW for count in counts])))
    rows.append((COUNTER_ROW, _COUNTS.pack(index, *[count & _LOW for count in counts])))
    return rows


def with_low(counts: Sequence[int], row: bytes) -> tuple[int, list[int]]:
    """The index of a row ``c``, and the counts with its halves. struct.error: it is none."""
    index, *lows = _COUNTS.unpack(row)
    return index, [count & ~_LOW | low for count, low in zip(counts, lows, strict=True)]


def with_high(counts: Sequence[int], row: bytes) -> list[int]:
    """The counts with the halves of a row ``C``. struct.error: it is none."""
    highs = _HIGHS.unpack(row)
    return [high << 32 | count & _LOW for count, high in zip(counts, highs, strict=True)]

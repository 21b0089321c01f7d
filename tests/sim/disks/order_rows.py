"""Of the simulator's store: rows of features, among what it keeps by name; and how long an apply takes;
and rows as answers take them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cluster.effects.records import Item, items
from cluster.evaluate.reading.ranges import row_tags
from cluster.evaluate.reading.row_parts import sizes_of
from cluster.features.rows import decode
from node.storage import Applied, Event


def apply_rows(metas: dict[str, bytes], out: Applied, data: bytes, pos: int, end: int) -> None:
    """A ROWS item."""
    feature, rows = decode(data, pos, end)
    for name, value in rows:
        if value is None:
            metas.pop(_named(feature, name), None)
        else:
            metas[_named(feature, name)] = value
    out.rows.setdefault(feature, []).extend(rows)


def feature_rows(metas: dict[str, bytes], feature: int) -> list[tuple[bytes, bytes]]:
    """As ``node.storage.StateStore``'s."""
    prefix = _named(feature, b"")
    return [
        (bytes.fromhex(name[len(prefix) :]), value)
        for name, value in sorted(metas.items())
        if name.startswith(prefix)
    ]


def _named(feature: int, name: bytes) -> str:
    return f"feature/{feature}/{name.hex()}"


def pauses(found: Iterable[bytes]) -> Iterator[list[Event]]:
    """A delete of a range takes a while: others get their turn before anything of the run shows."""
    for data in found:
        if any(kind in (Item.DELETE_RANGE, Item.TXN_LONG) for kind, _, _ in items(data)):
            for _ in range(100):  # as many as make some five slices
                yield []


class Splicer:
    """Rows that go into an answer as they lie."""

    def __init__(self, rows: Iterator[tuple[bytes, bytes]]) -> None:
        self._rows = rows

    def more(self, parts: list[bytes], most: int, most_bytes: int, sizes: list[bytes] | None = None,
             ) -> tuple[int, bytes | None, bool]:
        taken, begin, ended = 0, len(parts), False
        last = None
        while taken < most and most_bytes > 0:
            row = next(self._rows, None)
            if row is None:
                ended = True
                break
            last, kv = row
            parts += (row_tags[len(kv)], kv)
            most_bytes -= len(kv)
            taken += 1
        if sizes is not None:
            sizes.append(sizes_of(parts, begin))
        return taken, last, ended

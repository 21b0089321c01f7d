"""Rows of a range out of a view, a step at a time, and a Range's answer made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from cluster.evaluate.reading.ranges import RangeRead, Row
from cluster.evaluate.spans import inverted
from cluster.evaluate.steps import STEP_BYTES, Steps
from cluster.evaluate.txns.plain_txn import Large
from cluster.evaluate.view import Version, View

_STEP_ROWS = 256


def scan(view: View, key: bytes, range_end: bytes, revision: int = 0) -> Iterator[Row]:
    """Live rows of a range in etcd's spelling; an inverted range holds nothing."""
    if not range_end and not revision:
        kv = view.get(key)
        return iter(()) if kv is None else iter(((key, kv),))
    if inverted((key, range_end)):
        return iter(())
    return view.scan(key, range_end, revision)


def some_rows(rows: Iterator[Row]) -> tuple[list[Row], bool]:
    """The rows of one step, and whether these are the last."""
    some: list[Row] = []
    size = 0
    for row in rows:
        if not row[0]:  # PAUSE
            return some, False
        some.append(row)
        size += len(row[1])
        if len(some) >= _STEP_ROWS or size >= STEP_BYTES:
            return some, False
    return some, True


def spend(left: list[int] | None, rows: Sequence[Row], ended: bool = True) -> None:
    """So many bytes are read; a step behind which others come, of few rows among many that are gone, counts
    as a whole one. ``left``: how many more may be; Large."""
    if left is not None:
        size = sum([len(kv) for _, kv in rows])
        left[0] -= size if ended else max(size, STEP_BYTES)
        if left[0] < 0:
            raise Large


def merged(
    rows: Iterator[Row], keys: Sequence[bytes], written: Callable[[bytes], Version | None]
) -> Iterator[Row]:
    """Rows with the sorted ``keys`` that were written over them; ``written`` gives None for a deleted key."""
    at, count = 0, len(keys)
    for row in rows:
        key = row[0]
        while at < count and keys[at] <= key:
            version = written(keys[at])
            if version is not None:
                yield keys[at], version.kv
            at += 1
        if not at or keys[at - 1] != key:
            yield row  # a PAUSE, too
    for key in keys[at:]:
        version = written(key)
        if version is not None:
            yield key, version.kv


def range_pieces(view: View, read: RangeRead, left: list[int] | None = None) -> Steps[list[bytes]]:
    """A Range's response after the header, at ``read.revision``. ``left``: see :func:`spend`."""
    rows = scan(view, read.key, read.range_end, read.revision)
    ended = False
    while not ended:
        some, ended = some_rows(rows)
        spend(left, some, ended)
        # a limited range needs the first rows, and the number of all
        before = read.count
        if not read.satisfied:
            read.feed(some)
        read.add_count(len(some) - (read.count - before))
        if not ended:
            yield
    yield from read.ending()
    return read.take_parts()

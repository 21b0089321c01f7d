"""Ranges over several shards in another order than that of their keys: all rows are needed, and are put
together in steps, however many they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import merge
from operator import itemgetter
from typing import Any

from cluster.evaluate.reading.ranges import RangeRead, Row
from cluster.evaluate.reading.rows import some_rows
from cluster.evaluate.reading.sorting import SortedRows
from cluster.evaluate.steps import Steps
from cluster.wire.protobuf import read_varint

_STEP_ROWS = 256  # are taken out of an answer in a step
_HEAD_BYTES = 11  # of a field at most, before what it holds


def bytes_of(tails: list[list[bytes]]) -> int:
    """Of the shards' answers."""
    return sum([len(piece) for tail in tails for piece in tail])


def range_pieces(request: Any, tails: list[list[bytes]]) -> Steps[list[bytes]]:
    """The RangeResponse after its header, in pieces. ``tails``: the shards' answers; they are used up."""
    total = 0
    sources: list[list[Row]] = []
    # a shard may have sorted a limited range otherwise
    by_key = SortedRows(itemgetter(0), False, 0) if request.limit > 0 else None
    for tail in tails:
        rows: list[Row] = []
        for count in _rows_of(tail, rows):
            total += count
            if by_key is not None:
                by_key.add(rows)
                rows.clear()
            yield
        sources.append(rows)
    read = RangeRead(request)
    pieces: list[bytes] = []
    if not read.count_only:
        in_order: Iterable[Row] = merge(*sources) if by_key is None else by_key.ordered()
        left = iter(in_order)
        ended = False
        while not ended:
            some, ended = some_rows(left)
            ended = read.feed(some) or ended
            if read.unsent:
                pieces += read.take_parts()
            yield
    read.add_count(total - read.count)
    for _ in read.ending():
        pieces += read.take_parts()
        yield
    return pieces + read.take_parts()


def range_rows(tail: bytes) -> tuple[list[Row], int]:
    """Rows and count of a RangeResponse in wire form, after its header."""
    rows: list[Row] = []
    return rows, sum(_rows_of([tail], rows))


def _rows_of(pieces: list[bytes], rows: list[Row]) -> Iterator[int]:
    """Adds the rows of a RangeResponse, some at a time, and gives what is new of its count. Each piece may
    end within a row, and goes once it is read."""
    held: list[bytes] = []  # read on once they have so many bytes
    size = needed = 0
    for place, piece in enumerate(pieces, 1):
        pieces[place - 1] = b""
        held.append(piece)
        size += len(piece)
        last = place == len(pieces)
        if size < needed and not last:
            continue
        data = b"".join(held)
        pos, count, end, taken = 0, 0, size, 0
        needed = 0
        while pos < end and (last or end - pos >= _HEAD_BYTES):
            tag = data[pos]
            number, at = read_varint(data, pos + 1)
            if tag == 0x12:
                if (upto := at + number) > end:
                    needed = upto - pos
                    break
                kv = data[at:upto]
                key_len, at = read_varint(kv, 1)
                rows.append((kv[at : at + key_len], kv))
                pos = upto
                taken += 1
                if taken % _STEP_ROWS == 0:
                    yield 0
            else:
                pos = at
                if tag == 0x20:
                    count = number
        held = [data[pos:]]
        size -= pos
        yield count

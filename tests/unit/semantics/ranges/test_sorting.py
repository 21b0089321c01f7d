"""Sorted rows: the order of a stable sort, of which no step takes long and a limited one keeps little."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.evaluate.reading.ranges import Fields, RangeRead
from cluster.evaluate.reading.sorting import _RUN, SortedRows
from cluster.pb import rpc_pb2 as pb
from cluster.wire.protobuf import key_value


@given(st.lists(st.integers(0, 5), max_size=40), st.booleans(), st.integers(0, 12), st.sampled_from([1, 3, 1000]))
@settings(max_examples=500, deadline=None)
def test_rows_come_as_out_of_a_stable_sort(ranks: list[int], descending: bool, limit: int, run: int) -> None:
    rows = [(b"%03d" % at, b"%d" % rank) for at, rank in enumerate(ranks)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cluster.evaluate.reading.sorting._RUN", run)
        found = SortedRows(lambda row: row[1], descending, limit)
        for at in range(0, len(rows), 7):
            found.add(rows[at : at + 7])
        expected = sorted(rows, key=lambda row: row[1], reverse=descending)
        assert list(found.ordered()) == (expected[:limit] if limit else expected)


def rows(count: int) -> list[tuple[bytes, bytes]]:
    return [(b"%06d" % at, key_value(b"%06d" % at, 2, 2, 1, b"%d" % (at * 7919 % count), 0)) for at in range(count)]


@pytest.mark.parametrize("limit", [1, 100])
def test_a_limited_sort_keeps_little(limit: int) -> None:
    """Ten sorts by value with limit 1 kept all rows and sorted them in one go: 1.2 s."""
    read = RangeRead(pb.RangeRequest(key=b"0", range_end=b"\0", sort_order=2, sort_target=4, limit=limit))
    most = 0
    some = iter(rows(20_000))
    while part := list(islice(some, 256)):
        read.feed(part)
        assert read._sorted is not None
        most = max(most, len(read._sorted))
    assert most <= max(_RUN, 2 * limit)
    answer = pb.RangeResponse.FromString(read.finish())
    assert (answer.more, answer.count, len(answer.kvs)) == (True, 20_000, limit)
    assert answer.kvs[0].value == b"9999"


def test_a_whole_sort_ends_in_short_steps() -> None:
    read = RangeRead(pb.RangeRequest(key=b"0", range_end=b"\0", sort_order=1, sort_target=4))
    read.feed(rows(20_000))
    parts: list[bytes] = []
    steps = 0
    for _ in read.ending():
        part = read.take()
        assert len(pb.RangeResponse.FromString(part).kvs) <= 256
        parts.append(part)
        steps += 1
    answer = pb.RangeResponse.FromString(b"".join(parts) + read.take())
    assert [kv.value for kv in answer.kvs] == sorted(Fields(kv).value for _, kv in rows(20_000))
    assert steps == -(-20_000 // 256)

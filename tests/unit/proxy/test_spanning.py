"""A range over several shards is what one shard with all the keys would answer."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.pb import rpc_pb2
from cluster.ranges import RangeRead, Row
from cluster.wire import key_value
from proxy.spanning import join, range_answer, range_requests, range_rows

KEYS = st.binary(min_size=1, max_size=2)
SMALL = st.integers(0, 6)


@st.composite
def requests(draw: st.DrawFn) -> Any:
    return rpc_pb2.RangeRequest(
        key=b"\0", range_end=b"\0", limit=draw(st.integers(0, 5)), sort_order=draw(st.integers(0, 2)),
        sort_target=draw(st.integers(0, 4)), keys_only=draw(st.booleans()), count_only=draw(st.booleans()),
        min_mod_revision=draw(SMALL), max_mod_revision=draw(SMALL), min_create_revision=draw(SMALL),
        max_create_revision=draw(SMALL))


def answer(request: Any, rows: list[Row]) -> bytes:
    """As a replica with these rows answers."""
    read = RangeRead(request)
    read.feed(iter(rows))
    read.add_count(len(rows) - read.count)
    return read.finish()


@settings(max_examples=300, deadline=None)
@given(requests(), st.dictionaries(KEYS, st.tuples(SMALL, SMALL, st.integers(1, 3), KEYS, st.integers(0, 2)), max_size=20))
def test_it_is_what_one_shard_would_answer(request: Any, store: dict[bytes, tuple[int, int, int, bytes, int]]) -> None:
    rows = [(key, key_value(key, 1 + create, 1 + mod, version, value, 0), shard)
            for key, (create, mod, version, value, shard) in sorted(store.items())]
    asked = range_requests(request, (0, 1, 2))
    tails = [answer(rpc_pb2.RangeRequest.FromString(body), [r[:2] for r in rows if r[2] == s]) for s, body in asked]
    assert range_answer(request, join(tails)) == answer(request, [r[:2] for r in rows])


def test_the_last_row_of_many_costs_two_rows_of_each_shard() -> None:
    """What locks and elections ask for."""
    request = rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0", limit=1, sort_order=2, sort_target=2)
    asked = range_requests(request, (0, 1))
    rows = [(b"k%03d" % i, key_value(b"k%03d" % i, 2 + i, 2 + i, 1, b"v", 0)) for i in range(500)]
    sent = [len(range_rows(answer(rpc_pb2.RangeRequest.FromString(body), rows[s::2]))[0]) for s, body in asked]
    assert sent == [2, 2]

"""A range's answer: fed in slices it is the one that the model gives, whatever the request asks for."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import errors
from cluster.evaluate.reading.ranges import (
    Fields,
    RangeRead,
    is_creation,
    plain_answer,
    plain_get,
    without_value,
)
from cluster.pb import kv_pb2
from cluster.pb import rpc_pb2 as pb
from cluster.wire.protobuf import key_value
from tests.unit.semantics.memory import MemoryShard, range_, refusal
from tests.unit.semantics.model import Model

Row = tuple[bytes, bytes]


@st.composite
def stores(draw: Any) -> list[Row]:
    """Rows in key order with few different values, so that ranks tie and filters bite."""
    number = st.sampled_from([1, 2, 3, 130, 20_000])
    rows = []
    for key in sorted(draw(st.sets(st.binary(min_size=1, max_size=2), max_size=12))):
        create = draw(number)
        rows.append((key, key_value(
            key, create, create + draw(number), draw(number), draw(st.sampled_from([b"", b"a", b"b" * 200])),
            draw(st.sampled_from([0, 5, 1 << 40, -3])))))
    return rows


# an int64's ends, and those of the machine's smaller numbers
far = st.sampled_from(
    [-(1 << 63), -(1 << 31), (1 << 31) - 1, 1 << 31, 1 << 32, 1 << 62, (1 << 63) - 2, (1 << 63) - 1])

requests = st.builds(
    pb.RangeRequest,
    key=st.just(b"\0"), range_end=st.just(b"\0"), limit=st.one_of(st.integers(-1, 8), far),
    sort_order=st.integers(0, 2), sort_target=st.integers(0, 4), keys_only=st.booleans(),  # type: ignore[arg-type]
    count_only=st.sampled_from([False, False, True]),
    min_mod_revision=st.sampled_from([0, 0, 0, 4, -(1 << 63), (1 << 63) - 1]),
    max_mod_revision=st.sampled_from([0, 0, 0, 140, -(1 << 63), (1 << 63) - 1]),
    min_create_revision=st.sampled_from([0, 0, 0, 2, -1]), max_create_revision=st.sampled_from([0, 0, 0, 3]))


def serve(request: pb.RangeRequest, rows: list[Row], slice_rows: int, *, take: bool = False) -> pb.RangeResponse:
    """As a reader does: slices while rows are wanted, then a count of the rest after the last key."""
    read = RangeRead(request.SerializeToString())
    parts = []
    source = iter(rows)
    while not read.satisfied:
        piece = [row for _, row in zip(range(slice_rows), source, strict=False)]
        if not piece:
            break
        if read.wanted is not None and read.wanted < len(piece):
            # more than is wanted is not consumed
            rest = iter(piece)
            assert read.feed(rest)
            assert len(list(rest)) == len(piece) - [r[0] for r in piece].index(read.last_key or b"") - 1
            break
        read.feed(piece)
        if take:
            parts.append(read.take())
    if read.satisfied:
        read.add_count(sum(1 for key, _ in rows if read.last_key is None or key > read.last_key))
    return pb.RangeResponse.FromString(b"".join([*parts, read.finish()]))


@given(requests, stores(), st.integers(1, 5), st.booleans())
@settings(max_examples=600, deadline=None)
def test_slices_make_the_same_answer_as_the_model(
    request: pb.RangeRequest, rows: list[Row], slice_rows: int, take: bool
) -> None:
    state = {key: kv_pb2.KeyValue.FromString(kv) for key, kv in rows}
    assert serve(request, rows, slice_rows, take=take) == Model()._range(request, state)


@pytest.mark.parametrize("limit", [(1 << 62) - 1, 1 << 62, (1 << 62) + 1, (1 << 63) - 2, (1 << 63) - 1])
@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("target", [0, 1, 4])
def test_a_limit_at_the_end_of_its_type_is_no_limit(limit: int, order: Any, target: Any) -> None:
    """A sort target alone makes etcd read one row more than the limit; 2**63 is no int64."""
    rows = [(b"%d" % n, key_value(b"%d" % n, 2 + n, 2 + n, 1, b"v", 0)) for n in range(5)]
    request = pb.RangeRequest(key=b"\0", range_end=b"\0", limit=limit, sort_order=order, sort_target=target)
    found = serve(request, rows, 2)
    request.limit = 0
    assert found == serve(request, rows, 2)


@given(stores())
@settings(max_examples=200, deadline=None)
def test_fields_are_those_that_protobuf_reads(rows: list[Row]) -> None:
    for key, kv in rows:
        message, fields = kv_pb2.KeyValue.FromString(kv), Fields(kv)
        assert (fields.create, fields.mod, fields.version, fields.lease, fields.value) == (
            message.create_revision, message.mod_revision, message.version, message.lease, message.value)
        message.value = b""
        assert without_value(kv) == message.SerializeToString()
        assert key == message.key


def test_a_limited_range_stops_reading_at_its_limit() -> None:
    def endless() -> Iterator[Row]:
        number = 0
        while True:
            number += 1
            yield b"k%09d" % number, b"\x0a\x01k"

    for fields, wanted in (
        ({"limit": 3}, 3),
        ({"limit": 3, "sort_order": 1}, 3),  # ascending by key: the order in which rows come
        ({"limit": 3, "sort_target": 3}, 4),
        ({"count_only": True, "limit": 3}, 0),
        ({"count_only": True, "sort_order": 2, "min_mod_revision": 1}, 0),
    ):
        read = RangeRead(pb.RangeRequest(key=b"k", range_end=b"\0", **fields).SerializeToString())
        assert read.wanted == wanted
        assert read.feed(endless())
        assert (read.count, read.wanted) == (wanted, 0)


@pytest.mark.parametrize("fields", [
    {}, {"limit": 3, "sort_order": 2}, {"limit": 3, "sort_order": 1, "sort_target": 1},
    {"limit": 3, "min_mod_revision": 1}, {"limit": 3, "sort_order": 1, "max_create_revision": 1}])
def test_filters_and_other_orders_need_every_row(fields: dict[str, Any]) -> None:
    read = RangeRead(pb.RangeRequest(key=b"k", range_end=b"\0", **fields).SerializeToString())
    assert read.wanted is None
    assert not read.satisfied


def test_only_rows_that_are_final_can_be_taken() -> None:
    rows = [(b"a", key_value(b"a", 1, 2, 3, b"v", 0)), (b"b", key_value(b"b", 1, 1, 3, b"w", 0))]
    plain = RangeRead(pb.RangeRequest(key=b"a", range_end=b"c"))
    plain.feed(rows)
    assert len(pb.RangeResponse.FromString(plain.take()).kvs) == 2
    assert pb.RangeResponse.FromString(plain.finish()) == pb.RangeResponse(count=2)
    ordered = RangeRead(pb.RangeRequest(key=b"a", range_end=b"c", sort_target=pb.RangeRequest.MOD))
    ordered.feed(rows)
    assert ordered.take() == b""
    assert [kv.key for kv in pb.RangeResponse.FromString(ordered.finish()).kvs] == [b"b", b"a"]


def test_inverted_ranges_and_single_keys_are_told_apart() -> None:
    def read(key: bytes, end: bytes) -> RangeRead:
        return RangeRead(pb.RangeRequest(key=key, range_end=end))

    assert read(b"b", b"a").empty
    assert read(b"b", b"b").empty
    assert not read(b"b", b"c").empty
    assert not read(b"b", b"\0").empty
    assert not read(b"b", b"").empty
    assert read(b"b", b"").single
    assert RangeRead(b"\x0a\x01b\x12\x00").single  # an empty end that is there, as Node.js writes it
    assert not read(b"b", b"\0").single


@pytest.mark.parametrize(("fields", "kind"), [
    ({}, errors.EMPTY_KEY),
    ({"key": b"", "sort_order": 9}, errors.EMPTY_KEY),
    ({"key": b"k", "sort_order": 3}, errors.INVALID_SORT_OPTION),
    ({"key": b"k", "sort_order": -1}, errors.INVALID_SORT_OPTION),
    ({"key": b"k", "sort_target": 5}, errors.INVALID_SORT_OPTION),
    ({"key": b"k", "sort_target": -1, "revision": 99}, errors.INVALID_SORT_OPTION),
    ({"key": b"k", "revision": 12}, errors.FUTURE_REV),
    ({"key": b"k", "revision": 4}, errors.COMPACTED),
])
def test_ranges_are_refused_in_etcds_order(fields: dict[str, Any], kind: errors.ErrorKind) -> None:
    shard = MemoryShard()
    shard.revision, shard.compact_revision = 11, 5
    body = pb.RangeRequest(**fields).SerializeToString()
    assert refusal(lambda: range_(shard, body)).kind == kind


@pytest.mark.parametrize("revision", [-1, 0, 5, 11])
def test_revisions_from_the_compacted_one_on_can_be_read(revision: int) -> None:
    shard = MemoryShard()
    shard.revision, shard.compact_revision = 11, 5
    assert range_(shard, pb.RangeRequest(key=b"k", revision=revision).SerializeToString()) == b""


def test_bytes_that_are_no_range_are_refused() -> None:
    assert refusal(lambda: RangeRead(b"\xff")).kind == errors.MALFORMED_REQUEST


def test_a_creation_is_told_by_its_revisions() -> None:
    assert is_creation(key_value(b"k", 300, 300, 1, b"v", 7))
    assert not is_creation(key_value(b"k", 300, 301, 2, b"v", 0))


@given(st.binary(max_size=200), st.booleans(), st.integers(0, 3))
def test_a_plain_get_is_what_parses_to_one_and_nothing_else(key: bytes, serializable: bool, limit: int) -> None:
    request = pb.RangeRequest(key=key, serializable=serializable, limit=limit)
    found = plain_get(request.SerializeToString())
    if found is None:
        assert not key or len(key) > 127 or limit
    else:
        assert pb.RangeRequest(key=found[0], serializable=found[1]) == request


@given(st.binary(max_size=12))
def test_bytes_that_look_like_a_plain_get_are_one(request: bytes) -> None:
    for data in (request, b"\x0a" + request, b"\x0a" + bytes((len(request),)) + request, b"\x0a\x01" + request):
        found = plain_get(data)
        if found is not None:
            assert pb.RangeRequest.FromString(data) == pb.RangeRequest(key=found[0], serializable=found[1])


@given(st.one_of(st.none(), st.binary(min_size=1, max_size=300)))
def test_the_answer_to_a_plain_get_is_that_of_a_range(value: bytes | None) -> None:
    kv = None if value is None else key_value(b"k", 1, 2, 3, value, 0)
    read = RangeRead(pb.RangeRequest(key=b"k"))
    if kv is not None:
        read.feed([(b"k", kv)])
    assert plain_answer(kv) == read.finish()

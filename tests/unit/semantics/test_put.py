"""The spliced put: the same effect, answer and refusals as through the message, for every request."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cluster import errors
from cluster.effects import records
from cluster.errors import EtcdError
from cluster.evaluate import requests as evaluate
from cluster.evaluate.plain_put import key_end, key_of
from cluster.pb import kv_pb2, rpc_pb2
from cluster.wire.messages import Method
from cluster.wire.protobuf import key_value, varint

from .memory import MemoryShard, refusal


def put_bytes(**fields: object) -> bytes:
    return rpc_pb2.PutRequest(**fields).SerializeToString()  # type: ignore[arg-type]


def shard_with(key: bytes, puts: int, revision: int) -> MemoryShard:
    shard = MemoryShard()
    shard.revision = revision
    for _ in range(puts):
        shard.execute(Method.PUT, put_bytes(key=key, value=b"old"))
    return shard


sizes = st.one_of(
    st.integers(0, 300), st.sampled_from([126, 127, 128, 129, 16383, 16384, 16385]))


@given(key_len=st.one_of(st.integers(1, 300), st.just(20000)), value_len=sizes, puts=st.integers(0, 3),
       revision=st.sampled_from([1, 126, 127, 128, 16382, 16383, 16384, 1 << 40]))
@settings(max_examples=300, deadline=None)
def test_a_put_logs_and_shows_what_the_wire_forms_say(
    key_len: int, value_len: int, puts: int, revision: int
) -> None:
    key, value = b"k" * key_len, b"v" * value_len
    shard = shard_with(key, puts, revision)
    create = revision + 1
    mod = shard.revision + 1
    outcome = evaluate.put(shard, put_bytes(key=key, value=value))
    kv = key_value(key, create, mod, puts + 1, value, 0)
    assert outcome.items == records.put(key, create if puts else 0, puts + 1, value, 0)
    assert outcome.writes == [(key, (create, mod, puts + 1, 0, kv))]
    assert (outcome.revision, outcome.changed, outcome.tail) == (mod, True, b"")
    assert kv_pb2.KeyValue.FromString(kv).SerializeToString() == kv


@given(st.binary(max_size=24))
@example(b"\x0a\x01k\x12\x85\x00xxxxx")  # a length in more bytes than it needs
@example(b"\x0a\x01k\x12\xff")
@example(b"\x0a\x01k\x12\x80\x00" + b"\xff" * 127)  # a length in more bytes than it needs, and what nobody reads behind it
@example(b"\x0a\x01k\x12\x80\x00\x18\x05\x28\x01\x0a\x79" + b"x" * 121)
@example(b"\x0a\x01k\x12\x80\x80")
@example(b"\x0a\x01a\x0a\x01b")  # the last key counts
@example(b"\x0a\x01a\x12\x01x\x12\x01y")
@example(b"\x12\x01x\x0a\x01a")
@example(b"\x0a\x00\x12\x01x")
@settings(max_examples=2000, deadline=None)
def test_any_bytes_mean_what_protobuf_says_they_mean(body: bytes) -> None:
    shard = MemoryShard()
    try:
        message = rpc_pb2.PutRequest.FromString(body)
    except Exception:
        assert refusal(lambda: evaluate.put(shard, body)).kind == errors.MALFORMED_REQUEST
        return
    try:
        expected: object = evaluate._put(shard, message)
    except EtcdError as e:
        expected = e.kind
    try:
        got: object = evaluate.put(shard, body)
    except EtcdError as e:
        got = e.kind
    assert got == expected


@pytest.mark.parametrize("rest", [*range(300), 0x3FFF, *range(0x4000, 0x4005)])
def test_what_is_taken_for_plain_is_what_protobuf_reads_for_every_length(rest: int) -> None:
    heads = {b""}
    for size in (0, 1, 127, 128, max(rest - 2, 0), max(rest - 3, 0)):
        heads |= {b"\x12" + varint(size), b"\x12" + bytes((size & 0x7F | 0x80, size >> 7 & 0x7F)), b"\x12\x80\x00"}
    for head in heads:
        if len(head) > rest:
            continue
        body = b"\x0a\x01k" + head + b"\x08" * (rest - len(head))
        if end := key_end(body):
            message = rpc_pb2.PutRequest.FromString(body)
            assert body[2:end] == message.key
            assert message == rpc_pb2.PutRequest(key=b"k", value=message.value)
            assert rest == 0 or body.endswith(message.value)
            assert len(message.SerializeToString()) == len(body)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"key": b""}, errors.EMPTY_KEY),
        ({"key": b"", "ignore_value": True, "value": b"x"}, errors.EMPTY_KEY),
        ({"key": b"k", "ignore_value": True, "value": b"x"}, errors.VALUE_PROVIDED),
        ({"key": b"k", "ignore_lease": True, "lease": 1}, errors.LEASE_PROVIDED),
        ({"key": b"k", "ignore_value": True, "value": b"x", "ignore_lease": True, "lease": 1},
         errors.VALUE_PROVIDED),
        ({"key": b"k", "lease": 5}, errors.LEASE_NOT_FOUND),
        ({"key": b"k", "lease": 5, "ignore_value": True}, errors.LEASE_NOT_FOUND),
        ({"key": b"k", "ignore_value": True}, errors.KEY_NOT_FOUND),
        ({"key": b"k", "ignore_lease": True}, errors.KEY_NOT_FOUND),
    ],
)
def test_puts_are_refused_in_etcds_order(fields: dict[str, object], kind: errors.ErrorKind) -> None:
    assert refusal(lambda: evaluate.put(MemoryShard(), put_bytes(**fields))).kind == kind


@given(st.binary(max_size=200), st.binary(max_size=20_000), st.integers(0, 2))
@example(b"k", bytes(127), 0)
@example(b"k", bytes(128), 0)
@example(b"k", bytes(16_383), 0)
@example(b"k", bytes(16_384), 0)
def test_a_plain_put_is_what_parses_to_one_and_nothing_else(key: bytes, value: bytes, lease: int) -> None:
    found = key_of(put_bytes(key=key, value=value, lease=lease))
    if found is None:
        assert not key or len(key) > 127 or len(value) >= 1 << 14 or lease
    else:
        assert (found, lease) == (key, 0)


@given(st.binary(max_size=12))
def test_bytes_that_look_like_a_plain_put_are_one(request: bytes) -> None:
    """A key said twice would mean the last one, and another shard."""
    for data in (request, b"\x0a\x01" + request, b"\x0a\x01k\x12" + request, b"\x0a\x01k\x12" + bytes((len(request),)) + request):
        found = key_of(data)
        if found is not None:
            parsed = rpc_pb2.PutRequest.FromString(data)
            assert parsed == rpc_pb2.PutRequest(key=found, value=parsed.value)

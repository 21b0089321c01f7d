"""Header blocks: the cache must never be seen."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from muster_client.wire.http2.hpack import request

from bench.client import Connection, Status
from bench.client.headers import MAX_CACHED_BLOCKS, HeaderReader

_FIELDS = st.lists(
    st.tuples(st.sampled_from(["grpc-status", "grpc-message", "content-type", "x-a", "x-b"]),
              st.sampled_from(["0", "5", "application/grpc", "", "some longer text", "y" * 500])),
    max_size=5,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(_FIELDS, st.sampled_from([None, None, None, 0, 100, 4096])), max_size=40))
def test_cached_reading_equals_plain_decoding(
        lists: list[tuple[list[tuple[str, str]], int | None]]) -> None:
    encoder, plain, reader = hpack.Encoder(), hpack.Decoder(), HeaderReader()
    for fields, table_size in lists:
        if table_size is not None:
            encoder.header_table_size = table_size
        data = encoder.encode(fields)
        wanted = tuple((str(name), str(value)) for name, value in plain.decode(data))
        assert reader.read(data).fields == wanted == tuple(fields)


def test_a_repeated_answer_is_looked_up_and_the_cache_stays_bounded() -> None:
    encoder, reader = hpack.Encoder(), HeaderReader()
    answer = [("grpc-status", "0"), ("grpc-message", "")]
    first = reader.read(encoder.encode(answer))  # changes the dynamic table: not cached
    assert not reader.cache
    again = encoder.encode(answer)
    assert reader.read(again) is reader.read(again)
    assert reader.read(again) == first
    never_indexed = hpack.Encoder()
    for i in range(MAX_CACHED_BLOCKS + 10):
        reader.read(never_indexed.encode([hpack.NeverIndexedHeaderTuple("x", str(i))]))
    assert len(reader.cache) <= MAX_CACHED_BLOCKS


@pytest.mark.parametrize(("fields", "code", "message"), [
    ([("grpc-status", "0")], None, ""),
    ([("grpc-status", "14"), ("grpc-message", "etcdserver: leader changed")], Status.UNAVAILABLE,
     "etcdserver: leader changed"),
    ([("grpc-status", "2"), ("grpc-message", "50%25 %C3%A4")], Status.UNKNOWN, "50% ä"),
    ([("x", "y")], Status.INTERNAL, "response without grpc-status"),
    ([(":status", "503")], Status.UNAVAILABLE, "HTTP status 503"),
    ([(":status", "415"), ("content-type", "text/plain")], Status.UNKNOWN, "HTTP status 415"),
])
def test_a_block_says_how_its_call_ended(fields: list[tuple[str, str]], code: int | None, message: str) -> None:
    outcome = HeaderReader().read(hpack.Encoder().encode(fields)).outcome
    assert (outcome.code if outcome else None) == code
    assert (outcome.message if outcome else "") == message


def test_a_request_block_decodes_to_grpcs_headers_and_leaves_the_servers_table_alone() -> None:
    decoder = hpack.Decoder()
    path = "/etcdserverpb.KV/" + "x" * 150  # longer than one length byte can say
    block = request(path, "127.0.0.1:2379", (("Token", "t"),), agent=Connection.agent)
    assert [(str(k), str(v)) for k, v in decoder.decode(block)] == [
        (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "127.0.0.1:2379"),
        ("content-type", "application/grpc"), ("te", "trailers"), ("user-agent", "muster-bench"), ("token", "t")]
    assert len(decoder.header_table.dynamic_entries) == 0

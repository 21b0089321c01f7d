"""HPACK against the ``hpack`` package, and the cache of whole blocks."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.http.http2.blocks import HeaderBlock, HeaderDecoder, encode_block
from proxy.http.http2.frames import ConnectionFault, ErrorCode

NAMES = st.sampled_from([b":method", b":path", b":scheme", b"content-type", b"te", b"grpc-timeout", b"token", b"x-a", b"x-bb"])
VALUES = st.one_of(st.sampled_from([b"", b"POST", b"/", b"http", b"trailers", b"/a.B/C", b"4999870u", b"x" * 500]), st.binary(max_size=30))
FIELDS = st.lists(st.tuples(NAMES, VALUES, st.booleans()), max_size=8)
BLOCKS = st.lists(st.tuples(FIELDS, st.booleans(), st.integers(0, 4096) | st.none()), min_size=1, max_size=12)


@given(BLOCKS)
@settings(max_examples=300, deadline=None)
def test_any_sequence_of_blocks_decodes_as_hpack_does(blocks: list) -> None:
    encoder, oracle, ours = hpack.Encoder(), hpack.Decoder(), HeaderDecoder(65_536)
    for fields, huffman, table_size in blocks:
        if table_size is not None:
            encoder.header_table_size = table_size
        block = encoder.encode([hpack.HeaderTuple(n, v) if plain else hpack.NeverIndexedHeaderTuple(n, v) for n, v, plain in fields], huffman=huffman)
        expected = oracle.decode(block, raw=True)
        assert ours.decode(block).fields == [(n, v) for n, v in expected]


def decode_or_none(decoder: HeaderDecoder, block: bytes) -> list | None:
    try:
        return decoder.decode(block).fields
    except ConnectionFault:
        return None


@given(st.lists(st.binary(max_size=40), max_size=6), st.integers(0, 2**32))
@settings(max_examples=500, deadline=None)
def test_any_octets_decode_as_hpack_does_or_are_refused_with_it(blocks: list[bytes], seed: int) -> None:
    oracle, ours = hpack.Decoder(), HeaderDecoder(65_536)
    for block in blocks:
        try:
            expected = [(n, v) for n, v in oracle.decode(block, raw=True)]
        except hpack.HPACKError:
            expected = None
        got = decode_or_none(ours, block)
        if got is None or expected is None:
            assert got is None
            return  # the oracle also takes size updates after a field, which section 4.2 forbids
        assert got == expected


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=20), st.binary(max_size=200)), max_size=10))
def test_what_we_encode_decodes_and_leaves_the_table_alone(fields: list[tuple[bytes, bytes]]) -> None:
    oracle = hpack.Decoder()
    assert [(n, v) for n, v in oracle.decode(encode_block(fields), raw=True)] == fields
    assert not oracle.header_table.dynamic_entries


def test_a_block_is_remembered_only_until_the_table_changes() -> None:
    encoder, ours = hpack.Encoder(), HeaderDecoder(65_536)
    fields = [(":method", "POST"), (":scheme", "http"), (":path", "/p"), ("x-a", "1")]
    ours.decode(encoder.encode(fields))  # inserts
    block = encoder.encode(fields)  # indexes only
    first = ours.decode(block)
    assert ours.decode(block) is first
    ours.decode(encoder.encode([("x-b", "2")]))  # inserts: the same octets now mean other fields
    shifted = ours.decode(block)
    assert shifted is not first
    assert shifted.fields != first.fields


def test_a_size_update_clears_the_cache_too() -> None:
    encoder, ours = hpack.Encoder(), HeaderDecoder(65_536)
    fields = [(":method", "POST"), (":scheme", "http"), (":path", "/p"), ("x-a", "1")]
    ours.decode(encoder.encode(fields))
    block = encoder.encode(fields)
    ours.decode(block)
    ours.decode(b"\x20")  # to zero: every entry is gone
    with pytest.raises(ConnectionFault):
        ours.decode(block)


def test_an_entry_too_large_for_the_table_empties_it() -> None:
    encoder, ours = hpack.Encoder(), HeaderDecoder(65_536)
    ours.decode(encoder.encode([("x-a", "1")]))
    index = encoder.encode([("x-a", "1")])
    assert ours.decode(index).fields == [(b"x-a", b"1")]
    ours.decode(b"\x40\x01y\x7f" + bytes((0x81 + 0x00, 0x3F)) + b"v" * (0x7F + 1 + 0x3F * 128))
    with pytest.raises(ConnectionFault):
        ours.decode(index)


def test_blocks_that_differ_in_the_timeout_share_what_is_known() -> None:
    encoder, ours = hpack.Encoder(), HeaderDecoder(65_536)
    fields = [(":method", "POST"), (":scheme", "http"), (":path", "/p"), ("te", "trailers")]
    blocks = [ours.decode(encoder.encode([*fields, ("grpc-timeout", f"{i}u"), ("x-a", "1")])) for i in range(100, 110)]
    assert len({id(block.base) for block in blocks[1:]}) == 1
    assert [block.metadata[b"grpc-timeout"] for block in blocks] == [b"%du" % i for i in range(100, 110)]
    assert [block.volatile for block in blocks[1:]] == [b"%du" % i for i in range(101, 110)]
    assert all(block.path == b"/p" and block.metadata[b"x-a"] == b"1" for block in blocks)


def test_a_small_block_cannot_unfold_into_a_huge_list() -> None:
    ours = HeaderDecoder(65_536)
    ours.decode(b"\x40\x01y\x7f\x81\x1d" + b"v" * (0x7F + 1 + 0x1D * 128))  # one entry of almost the whole table
    with pytest.raises(ConnectionFault) as caught:
        ours.decode(b"\xbe" * 16_000)
    assert caught.value.code is ErrorCode.ENHANCE_YOUR_CALM


def test_repeated_fields_are_joined() -> None:
    block = HeaderDecoder(65_536).decode(encode_block([(b":method", b"GET"), (b"a", b"1"), (b"b", b"2"), (b"a", b"3")]))
    assert block.metadata == {b"a": b"1,3", b"b": b"2"}


def test_a_field_is_found_without_making_a_map_of_all() -> None:
    usual = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a"), (b"te", b"trailers"), (b"x", b"1"), (b"x", b"2")]
    block = HeaderBlock(usual, 300)
    assert (block.field(b"x"), block.field(b"te"), block.field(b"y")) == (b"1,2", b"trailers", b"")
    assert block._metadata is None
    variant = HeaderBlock.variant(block, [*usual, (b"grpc-timeout", b"5S")], 350, b"5S")
    assert (variant.field(b"grpc-timeout"), variant.field(b"x"), variant.field(b"y")) == (b"5S", b"1,2", b"")
    assert variant._metadata is None
    for name in (b"x", b"te", b"y", b"grpc-timeout"):
        assert variant.field(name) == variant.metadata.get(name, b"")

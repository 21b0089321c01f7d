"""Header blocks as the package ``hpack`` makes them, and what is none."""

from __future__ import annotations

import hpack
import pytest
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.table import HeaderTable
from hypothesis import given
from hypothesis import strategies as st
from muster_client.wire.http2 import hpack as ours
from muster_client.wire.http2.answers import Blocks

HEADERS = st.lists(st.tuples(st.binary(min_size=1, max_size=20), st.binary(max_size=60)), max_size=6)


def test_the_tables_are_those_of_the_standard() -> None:
    assert tuple(HeaderTable.STATIC_TABLE) == ours._STATIC
    codes = zip(REQUEST_CODES, REQUEST_CODES_LENGTH, strict=True)
    assert {1 << bits | code: symbol for symbol, (code, bits) in enumerate(codes)} == ours._SYMBOLS


@given(st.lists(st.tuples(HEADERS, st.booleans(), st.sampled_from((None, 0, 90, 4096))), max_size=12))
def test_blocks_in_their_order(blocks: list[tuple[list[tuple[bytes, bytes]], bool, int | None]]) -> None:
    encoder, decoder = hpack.Encoder(), ours.Decoder()
    for headers, huffman, size in blocks:
        if size is not None:
            encoder.header_table_size = size
        assert decoder.decode(encoder.encode(headers, huffman=huffman)) == headers


@given(st.lists(st.binary(max_size=40), max_size=4))
def test_any_bytes_are_headers_or_refused(blocks: list[bytes]) -> None:
    decoder, reference = ours.Decoder(), hpack.Decoder(max_header_list_size=1 << 18)
    for block in blocks:
        try:
            expected = [(bytes(n), bytes(v)) for n, v in reference.decode(block, raw=True)]
        except hpack.HPACKError:
            with pytest.raises(ours.HeaderError):
                decoder.decode(block)
            return
        assert decoder.decode(block) == expected


@pytest.mark.parametrize("block", [
    b"\x80", b"\xff\xff\xff\xff\xff\x7f", b"\xbe", b"\x00\x05ab", b"\x00", b"\x3f\xe2\x1f",
    b"\x00\x01a\x81\x00", b"\x00\x01a\x84\xff\xff\xff\xff",
], ids=["no index", "integer", "empty table", "short", "no text", "table", "padding", "end of code"])
def test_what_is_no_block(block: bytes) -> None:
    with pytest.raises(ours.HeaderError):
        ours.Decoder().decode(block)


def test_a_block_is_not_for_ever() -> None:
    """A large one that costs few bytes: an entry of the table, repeated."""
    decoder = ours.Decoder()
    decoder.decode(b"\x40\x01a" + ours._literal(b"x" * 4000))
    with pytest.raises(ours.HeaderError, match="too many"):
        decoder.decode(b"\xbe" * 1000)


def test_requests_are_what_others_read() -> None:
    block = ours.request("/a.B/C", "h:1", (("token", "s" * 300),), secure=True)
    assert hpack.Decoder().decode(block) == [
        (":method", "POST"), (":scheme", "https"), (":path", "/a.B/C"), (":authority", "h:1"),
        ("content-type", "application/grpc"), ("te", "trailers"), ("user-agent", "muster-client"),
        ("token", "s" * 300)]


def test_a_remembered_block_goes_with_its_table() -> None:
    encoder, blocks = hpack.Encoder(), Blocks()
    ended = [(b"grpc-status", b"5"), (b"grpc-message", b"gone")]
    first = encoder.encode(ended, huffman=False)
    assert blocks.read(first).outcome is not None
    again = encoder.encode(ended, huffman=False)  # by indices alone
    for _ in range(2):
        told = blocks.read(again).outcome
        assert told is not None
        assert told.details == "gone"
    assert again in blocks.cache
    # the same bytes mean something else once another entry came before it
    blocks.read(encoder.encode([(b"grpc-status", b"7")], huffman=False))
    assert again not in blocks.cache

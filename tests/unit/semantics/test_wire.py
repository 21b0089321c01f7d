"""What is written by hand in protobuf's wire form is what protobuf writes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.pb import rpc_pb2
from cluster.wire.protobuf import ResponseHeaders, header_prefix, read_varint, response_header, varint

numbers = st.one_of(st.integers(0, 1 << 63), st.sampled_from(
    [step + by for bits in range(7, 64, 7) for step in (1 << bits,) for by in (-1, 0, 1)]))


@given(numbers)
def test_a_varint_is_read_as_it_was_written_and_takes_no_byte_too_many(number: int) -> None:
    encoded = varint(number)
    assert read_varint(encoded, 0) == (number, len(encoded))
    assert len(encoded) == max(1, -(-number.bit_length() // 7))


@pytest.mark.parametrize("size", [10, 11, 2_000_000])
def test_a_varint_that_does_not_end_is_left_after_ten_bytes(size: int) -> None:
    """A client's two million took minutes of a front once: each was added to a longer number."""
    with pytest.raises(IndexError):
        read_varint(b"\xff" * size, 0)


@pytest.mark.parametrize("prefix", [header_prefix(7, 1), header_prefix(1 << 63, (1 << 64) - 1), b""])
def test_headers_made_in_a_row_are_those_made_one_by_one(prefix: bytes) -> None:
    headers = ResponseHeaders(prefix)
    for term in (1, 127, 128, 3, 1 << 40):
        for revision in (1, 0, 127, 128, 16_383, 16_384, 1 << 21, 1 << 28, 1 << 62):
            made = headers.make(revision, term)
            assert made == response_header(prefix, revision, term)
            parsed = rpc_pb2.PutResponse.FromString(made).header
            assert (parsed.revision, parsed.raft_term) == (revision, term)

"""Huffman strings against the ``hpack`` package."""

from __future__ import annotations

import pytest
from hpack.exceptions import HPACKDecodingError
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.http.http2 import huffman

ENCODER = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)


def meaning(raw: bytes) -> bytes | str:
    try:
        return huffman.decode(raw)
    except HPACKDecodingError as error:
        return str(error)


def hpacks(raw: bytes) -> bytes | str:
    try:
        return bytes(decode_huffman(raw))
    except HPACKDecodingError as error:
        return str(error)


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_what_is_encoded_comes_back(text: bytes) -> None:
    assert huffman.decode(ENCODER.encode(text)) == text


@given(st.binary(max_size=12))
@settings(max_examples=2000, deadline=None)
def test_any_octets_mean_what_they_mean_to_hpack_or_are_refused_with_it(raw: bytes) -> None:
    assert meaning(raw) == hpacks(raw)


def test_every_octet_after_every_octet_is_as_hpack_has_it() -> None:
    for first in range(256):
        for second in range(256):
            raw = bytes((first, second))
            assert meaning(raw) == hpacks(raw)


@pytest.mark.parametrize("raw", [b"\xff\xff\xff\xff", b"\xfe", b"\x1c\xff\xff"])
def test_what_is_no_code_or_padded_by_too_much_is_refused(raw: bytes) -> None:
    with pytest.raises(HPACKDecodingError):
        huffman.decode(raw)

"""Many puts in one item, whose revisions come later."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.effects import later_puts, records
from cluster.effects.later_puts import LaterPuts
from cluster.effects.records import ITEM, Item
from cluster.order.log import revisions_of
from cluster.wire.protobuf import varint, varints


def some(count: int) -> LaterPuts:
    keys = [b"%0*d" % (1 + n % 127, n % 10) for n in range(count)]
    new = [n % 3 == 0 for n in range(count)]
    heads = [b"\x0a%b%b" % (varint(len(key)), key) + (b"" if n else b"\x10" + varint(7 << at % 50))
             for at, (key, n) in enumerate(zip(keys, new, strict=True))]
    tails = [b"\x20\x01\x2a" + varint(n) + bytes(n) for n in range(count)]
    return LaterPuts(keys, heads, tails, new)


@pytest.mark.parametrize("count", [1, 2, 300])
def test_what_is_read_is_what_was_written(count: int) -> None:
    puts = some(count)
    item = puts.encode()
    (kind, pos, end), = records.items(item)
    assert (kind, end) == (Item.PUTS_LATER, len(item))
    assert later_puts.read(item, pos, end) == puts
    assert revisions_of(item, kind, pos, end) == count


@pytest.mark.parametrize("revision", [1, 126, 127, 128, 16_383, 1 << 40])
def test_their_key_values_are_those_of_single_items(revision: int) -> None:
    puts = some(300)
    found = puts.at(revision)
    kvs = []
    for item in puts.items():
        revision += 1
        kvs.append(records.read_put(item, item[0], ITEM.size, len(item), varint(revision))[:2])
    assert list(zip(found.keys, found.kvs, strict=True)) == kvs
    assert found.new == [key for key, item in zip(puts.keys, puts.items(), strict=True) if item[0] == Item.PUT_NEW]


def test_what_is_cut_short_or_goes_on_is_refused() -> None:
    item = some(3).encode()
    for end in range(ITEM.size, len(item)):
        with pytest.raises(ValueError, match="truncated puts"):
            later_puts.read(item[:end], ITEM.size, end)
    with pytest.raises(ValueError, match="truncated puts"):
        later_puts.read(item + b"x", ITEM.size, len(item) + 1)


@given(st.integers(0, 1 << 40), st.integers(0, 500))
def test_successive_varints(first: int, count: int) -> None:
    assert varints(first, count) == [varint(n) for n in range(first, first + count)]

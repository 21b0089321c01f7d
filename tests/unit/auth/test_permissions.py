"""Which keys the union of granted ranges covers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.features.auth.permissions import Ranges, interval

_KEYS = [bytes([a]) for a in b"abcdef"]


def _ranges(*granted: tuple[bytes, bytes]) -> Ranges:
    return Ranges(interval(key, range_end) for key, range_end in granted)


def test_a_permission_on_one_key_covers_that_key_alone() -> None:
    ranges = _ranges((b"k", b""))
    assert ranges.covers(b"k", b"")
    assert not ranges.covers(b"k\0", b"")
    assert not ranges.covers(b"k", b"\0")
    assert not ranges.covers(b"k", b"l")


def test_adjacent_ranges_cover_what_spans_both() -> None:
    ranges = _ranges((b"a", b"c"), (b"c", b"e"))
    assert ranges.covers(b"a", b"e")
    assert not ranges.covers(b"a", b"f")


def test_a_gap_of_one_key_is_a_gap() -> None:
    assert not _ranges((b"a", b"c"), (b"c\0", b"e")).covers(b"a", b"e")
    assert _ranges((b"a", b"c"), (b"c\0", b"e"), (b"c", b"")).covers(b"a", b"e")


def test_a_range_to_the_end_covers_every_later_key() -> None:
    ranges = _ranges((b"b", b"\0"), (b"a", b"c"))
    assert ranges.covers(b"a", b"\0")
    assert ranges.covers(b"zzz", b"")
    assert not ranges.covers(b"A", b"\0")


def test_what_is_behind_a_range_is_found_without_a_look_at_its_keys() -> None:
    ranges = _ranges((b"b", b"d"), (b"d", b""), (b"f", b""), (b"x", b"\0"))
    found = {key: ranges.behind(key) for key in (b"a", b"b", b"c", b"d", b"d\0", b"f", b"g", b"x", b"z")}
    assert found == {
        b"a": b"a", b"b": b"d\0", b"c": b"d\0", b"d": b"d\0", b"d\0": b"d\0", b"f": b"f\0", b"g": b"g",
        b"x": None, b"z": None}  # fmt: skip
    assert [_ranges(one).everything for one in ((b"\0", b"\0"), (b"", b"\0"), (b"\1", b"\0"))] == [
        True, True, False]  # fmt: skip
    assert not _ranges().everything


def test_nothing_covers_a_key_where_nothing_was_granted() -> None:
    assert not _ranges().covers(b"a", b"")


def test_a_range_without_keys_is_covered_where_its_start_is() -> None:
    ranges = _ranges((b"b", b"c"), (b"d", b"f"))
    for key, end, covered in (
        (b"b", b"b", True), (b"b", b"a", True), (b"e", b"e", True), (b"e", b"d", True),
        (b"e", b"a", False), (b"c", b"c", False), (b"c", b"b", False), (b"a", b"a", False),
    ):  # fmt: skip
        assert ranges.covers(key, end) is covered, (key, end)


_range = st.tuples(st.sampled_from(_KEYS), st.sampled_from([b"", b"\0", *_KEYS, b"g"]))


@given(st.lists(_range, max_size=5), _range)
def test_a_range_is_covered_if_each_of_its_keys_is(
    granted: list[tuple[bytes, bytes]], asked: tuple[bytes, bytes]
) -> None:
    def keys(key: bytes, range_end: bytes) -> set[bytes]:
        if not range_end:
            return {key}
        # between two letters there are keys, too: each stands for those behind it
        points = [point for letter in (*_KEYS, b"g") for point in (letter, letter + b"\0")]
        return {p for p in points if p >= key and (range_end == b"\0" or p < range_end)}

    wanted = keys(*asked)
    held = set().union(*(keys(*one) for one in granted)) if granted else set()
    if wanted:
        assert _ranges(*granted).covers(*asked) is (wanted <= held)

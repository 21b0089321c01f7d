"""The index of watched ranges, against looking at each."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from node.serving.watch.range_index import RangeIndex
from tests.tries import best_of_three
from tests.unit.turns import short_turns


@dataclass(eq=False)
class Wish:
    key: bytes
    range_end: bytes

    def holds(self, key: bytes) -> bool:
        return self.key <= key and (self.range_end == b"\0" or key < self.range_end)


@st.composite
def keys(draw: DrawFn) -> bytes:
    return bytes(draw(st.lists(st.sampled_from(b"\x00ab\xff"), min_size=1, max_size=3)))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(("add", "add", "many", "remove", "ask")), keys(), keys(), st.integers(0, 999)),
                max_size=60))
def test_it_finds_what_a_look_at_each_finds(steps: list[tuple[str, bytes, bytes, int]]) -> None:
    index: RangeIndex[Wish] = RangeIndex()
    there: list[Wish] = []
    for action, start, end, number in steps:
        if action in ("add", "many"):
            for _ in range(40 if action == "many" else 1):  # as many as make it build its tree
                wish = Wish(start, end)
                there.append(wish)
                index.add(wish)
        elif action == "remove" and there:
            index.remove(there.pop(number % len(there)))
        for key in (start, end):
            assert sorted(map(id, index.holding(key))) == sorted(id(w) for w in there if w.holds(key))
        assert len(index) == len(there)


def test_a_search_looks_at_few_ranges_also_right_after_many_came_and_went() -> None:
    index: RangeIndex[Wish] = RangeIndex()
    looked = 0

    class Counted(bytes):
        def __gt__(self, other: object) -> bool:  # reflected by ``bytes <= Counted``
            nonlocal looked
            looked += 1
            return bytes(self) > other  # type: ignore[operator]

        def __ge__(self, other: object) -> bool:
            nonlocal looked
            looked += 1
            return bytes(self) >= other  # type: ignore[operator]

        def __lt__(self, other: object) -> bool:
            nonlocal looked
            looked += 1
            return bytes(self) < other  # type: ignore[operator]

    wishes = [Wish(b"/%05d/" % i, b"/%05d0" % i) for i in range(10_000)]
    for wish in wishes:
        index.add(wish)
    index.holding(b"/00000/x")
    for wish in wishes[::3]:
        index.remove(wish)
    for _ in range(30):
        index.add(Wish(b"/05000/", b"/050000"))
    found = index.holding(Counted(b"/04999/x"))
    assert found == [wishes[4999]]
    assert 0 < looked < 200


@best_of_three
def test_no_turn_builds_anything_for_50_000_ranges() -> None:
    index: RangeIndex[Wish] = RangeIndex()
    wishes = [Wish(b"/%05d/" % i, b"/%05d0" % i) for i in range(50_000)]
    with short_turns() as turns:
        for at, wish in enumerate(wishes):
            with turns.turn():
                index.add(wish)
                if at % 100 == 0:
                    assert index.holding(b"/%05d/x" % at) == [wish]
        for at, wish in enumerate(wishes[::2]):
            with turns.turn():
                index.remove(wish)
                if at % 100 == 0:
                    assert index.holding(b"/%05d/x" % (2 * at + 1)) == [wishes[2 * at + 1]]

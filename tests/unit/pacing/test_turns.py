"""A window is handed round its owners in turn."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.pacing.turns import NO_LIMIT, Turns


def began(turns: Turns[str]) -> list[str]:
    """Everything that may begin now."""
    found = []
    while (item := turns.next()) is not None:
        found.append(item[2])
    return found


def test_who_asks_for_much_waits_behind_who_asks_for_little() -> None:
    turns: Turns[str] = Turns(1)
    assert turns.enter("a", 1, "a0")
    for number in range(1, 4):
        assert not turns.enter("a", 1, f"a{number}")
    assert not turns.enter("b", 1, "b0")
    order = []
    last = "a"
    while len(turns):
        turns.leave(last, 1)
        found = turns.next()
        assert found is not None
        last = str(found[0])
        order.append(found[2])
    assert order == ["a1", "b0", "a2", "a3"]


def test_what_is_larger_than_the_window_goes_alone() -> None:
    turns: Turns[str] = Turns(10)
    assert turns.enter("a", 3, "small")
    assert not turns.enter("b", 100, "large")
    assert not turns.enter("c", 3, "behind it")
    assert began(turns) == []
    turns.leave("a", 3)
    assert began(turns) == ["large"]
    turns.leave("b", 100)
    assert began(turns) == ["behind it"]


def test_what_is_beyond_a_share_makes_nobody_else_wait() -> None:
    turns: Turns[str] = Turns(NO_LIMIT, share=2)
    assert [turns.enter("a", 1, f"a{number}") for number in range(4)] == [True, True, False, False]
    assert turns.enter("b", 1, "b0")
    turns.leave("a", 1)
    assert began(turns) == ["a2"]
    turns.leave("a", 1)
    assert began(turns) == ["a3"]


def test_nobody_in_particular_is_an_owner_too() -> None:
    turns: Turns[str] = Turns(1)
    assert turns.enter(None, 1, "first")
    turns.enter(None, 1, "second")
    turns.leave(None, 1)
    assert began(turns) == ["second"]


def test_what_is_not_wanted_any_more_leaves_the_line() -> None:
    turns: Turns[str] = Turns(1)
    assert turns.enter("a", 1, "a0")
    for item in ("a1", "b1", "a2"):
        turns.enter(item[0], 1, item)
    assert turns.drop(lambda item: item.startswith("a")) == ["a1", "a2"]
    assert len(turns) == 1
    turns.leave("a", 1)
    assert began(turns) == ["b1"]


@given(st.integers(1, 9), st.integers(1, 9),
       st.lists(st.tuples(st.integers(0, 3), st.integers(1, 12)), max_size=40),
       st.randoms(use_true_random=False))
def test_everything_begins_once_in_its_owners_order_within_window_and_share(
    window: int, share: int, asked: list[tuple[int, int]], random: object,
) -> None:
    turns: Turns[int] = Turns(window, share)
    under_way: list[tuple[int, int]] = []  # owner, size
    order: dict[int, list[int]] = {}

    def begin(owner: int, size: int, number: int) -> None:
        under_way.append((owner, size))
        order.setdefault(owner, []).append(number)
        assert len(under_way) == 1 or sum(size for _, size in under_way) <= window
        own = [size for other, size in under_way if other == owner]
        assert len(own) == 1 or sum(own) <= share

    def end_one() -> None:
        owner, size = under_way.pop(random.randrange(len(under_way)))  # type: ignore[attr-defined]
        turns.leave(owner, size)
        while (found := turns.next()) is not None:
            assert isinstance(found[0], int)
            begin(found[0], found[1], found[2])

    for number, (owner, size) in enumerate(asked):
        if turns.enter(owner, size, number):
            begin(owner, size, number)
        elif random.random() < 0.3:  # type: ignore[attr-defined]
            end_one()
    while under_way:
        end_one()
    assert not len(turns)
    assert turns.used == 0
    assert sorted(number for numbers in order.values() for number in numbers) == list(range(len(asked)))
    assert all(numbers == sorted(numbers) for numbers in order.values())

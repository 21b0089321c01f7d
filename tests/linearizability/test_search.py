"""The search accepts what one register could have shown and nothing else."""

from __future__ import annotations

import itertools
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.linearizability import Operation, Outcome, unlinearizable

K = b"k"


def put(began: int, ended: int, value: str, outcome: Outcome = Outcome.OK, key: bytes = K) -> Operation:
    return Operation(began, ended, outcome, writes=((key, value.encode()),))


def get(began: int, ended: int, value: str | None, key: bytes = K) -> Operation:
    return Operation(began, ended, Outcome.OK, reads=((key, value.encode() if value else None),))


def delete(began: int, ended: int, value: str | None = None, outcome: Outcome = Outcome.OK) -> Operation:
    """One that tells what it deleted, unless its fate is unknown."""
    reads = ((K, value.encode() if value else None),) if outcome is Outcome.OK else ()
    return Operation(began, ended, outcome, reads=reads, writes=((K, None),) if value or not reads else ())


def cas(began: int, ended: int, old: str | None, new: str, outcome: Outcome = Outcome.OK) -> Operation:
    return Operation(began, ended, outcome, reads=((K, old.encode() if old else None),), writes=((K, new.encode()),))


MAYBE = Outcome.AMBIGUOUS


def good(*history: Operation) -> None:
    assert unlinearizable(history) == ""


def bad(*history: Operation) -> str:
    found = unlinearizable(history)
    assert found
    return found


def test_a_read_sees_the_last_write() -> None:
    good(put(0, 1, "a"), get(2, 3, "a"), put(4, 5, "b"), get(6, 7, "b"))


def test_overlapping_operations_may_be_in_either_order() -> None:
    good(put(0, 10, "a"), put(0, 10, "b"), get(11, 12, "a"))
    good(put(0, 10, "a"), put(0, 10, "b"), get(11, 12, "b"))
    good(put(0, 10, "a"), get(1, 2, None), get(3, 4, "a"), get(5, 6, "a"))


def test_a_stale_read_is_caught() -> None:
    assert "key k: no order" in bad(put(0, 1, "a"), put(2, 3, "b"), get(4, 5, "a"))


def test_a_lost_write_is_caught() -> None:
    bad(put(0, 1, "a"), get(2, 3, None))


def test_a_write_that_comes_back_is_caught() -> None:
    bad(put(0, 1, "a"), put(2, 3, "b"), get(4, 5, "b"), get(6, 7, "a"))


def test_a_doubled_write_is_caught() -> None:
    """The retry of an acknowledged write overwrote a later one."""
    bad(put(0, 1, "a"), get(2, 3, "a"), put(4, 5, "b"), get(6, 7, "b"), get(8, 9, "a"), put(10, 11, "c"))


def test_reads_that_disagree_about_the_order_of_writes_are_caught() -> None:
    bad(put(0, 10, "a"), put(0, 10, "b"), get(11, 12, "a"), get(13, 14, "b"))


def test_a_read_of_what_nobody_wrote_is_caught() -> None:
    bad(put(0, 1, "a"), get(2, 3, "x"))


def test_a_read_of_a_failed_write_is_caught() -> None:
    bad(put(0, 1, "a", Outcome.FAILED), get(2, 3, "a"))


def test_a_read_of_a_later_write_is_caught() -> None:
    bad(get(0, 1, "a"), put(2, 3, "a"))


def test_two_swaps_from_the_same_value_are_caught() -> None:
    good(put(0, 1, "a"), cas(2, 9, "a", "b"), cas(2, 9, "b", "c"))
    bad(put(0, 1, "a"), cas(2, 9, "a", "b"), cas(2, 9, "a", "c"))


def test_a_delete_that_found_nothing_where_there_was_something_is_caught() -> None:
    good(put(0, 1, "a"), delete(2, 3, "a"), get(4, 5, None), delete(6, 7))
    bad(put(0, 1, "a"), delete(2, 3))


def test_an_ambiguous_write_may_take_effect_late_or_never() -> None:
    maybe = put(0, 1, "a", MAYBE)
    good(maybe, get(2, 3, None))
    good(maybe, get(2, 3, None), get(4, 5, "a"))
    good(maybe, put(2, 3, "b"), get(4, 5, "b"), get(6, 7, "a"))
    good(put(0, 1, "b"), delete(2, 3, outcome=MAYBE), get(4, 5, "b"), get(6, 7, None))


def test_an_ambiguous_write_takes_effect_once_and_not_before_it_began() -> None:
    bad(put(0, 1, "a", MAYBE), get(2, 3, "a"), put(4, 5, "b"), get(6, 7, "a"))
    bad(get(0, 1, "a"), put(2, 3, "a", MAYBE))
    bad(put(0, 1, "b"), delete(2, 3, outcome=MAYBE), get(4, 5, None), put(6, 7, "c"), get(8, 9, None))


def test_ambiguous_swaps_form_chains() -> None:
    chain = [put(0, 1, "a", MAYBE), cas(2, 3, "a", "b", MAYBE), cas(4, 5, "b", "c", MAYBE)]
    good(*chain, get(6, 7, None), get(8, 9, "c"))
    bad(*chain[1:], get(6, 7, "c"))
    bad(*chain, get(6, 7, "c"), get(8, 9, "b"))


def test_an_operation_on_two_keys_counts_on_both() -> None:
    both = Operation(0, 1, Outcome.OK, writes=((b"x", b"1"), (b"y", b"1")))
    good(both, get(2, 3, "1", b"x"), get(2, 3, "1", b"y"))
    bad(both, get(2, 3, "1", b"x"), get(2, 3, None, b"y"))


def test_long_histories_take_seconds_at_most() -> None:
    """Sixteen clients, four operations in five on each other's toes, and a hundred writes of unknown fate."""
    history: list[Operation] = []
    for number in range(1500):
        at = number * 10
        history.append(put(at, at + 45, f"v{number}"))
        history.append(get(at + 2, at + 41, f"v{number}"))
        if number % 30 == 0:
            history.append(put(at, at + 40, f"u{number}", MAYBE))
    began = time.monotonic()
    good(*history)
    bad(*history, get(20_000, 20_001, "v7"))
    assert time.monotonic() - began < 30


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    found = []
    for number in range(draw(st.integers(1, 5))):
        began = draw(st.integers(0, 8))
        ended = began + draw(st.integers(1, 6))
        kind = draw(st.sampled_from(["put", "get", "get", "delete", "cas"]))
        value = draw(st.sampled_from([None, "v0", "v1", "v2", "v3", "v4"]))
        outcome = draw(st.sampled_from([Outcome.OK, Outcome.OK, MAYBE]))
        if kind == "put":
            found.append(put(began, ended, f"v{number}", outcome))
        elif kind == "get":
            found.append(get(began, ended, value))
        elif kind == "delete":
            found.append(delete(began, ended, value, outcome))
        else:
            found.append(cas(began, ended, value, f"v{number}", outcome))
    return found


def explained(history: list[Operation]) -> bool:
    """By trying every order of every choice of the ambiguous ones."""
    certain = [o for o in history if o.outcome is Outcome.OK]
    maybe = [o for o in history if o.outcome is MAYBE]
    for count in range(len(maybe) + 1):
        for chosen in itertools.combinations(maybe, count):
            for order in itertools.permutations([*certain, *chosen]):
                if _plays(order):
                    return True
    return False


def _plays(order: tuple[Operation, ...]) -> bool:
    state: bytes | None = None
    for place, operation in enumerate(order):
        if any(o.outcome is Outcome.OK and o.returned_ns < operation.invoked_ns for o in order[place + 1 :]):
            return False
        if any(value != state for _, value in operation.reads):
            return False
        state = operation.writes[0][1] if operation.writes else state
    return True


@settings(max_examples=1500, deadline=None)
@given(histories())
def test_the_search_agrees_with_trying_everything(history: list[Operation]) -> None:
    assert (unlinearizable(history) == "") == explained(history)

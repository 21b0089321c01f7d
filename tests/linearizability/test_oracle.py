"""The oracle catches each way in which answers and history can disagree."""

from __future__ import annotations

from dataclasses import replace

from tests.linearizability import Event, Operation, Outcome, check_operations, check_stream

A, B = b"a", b"b"
STREAM = [
    Event(2, A, b"1", 2, 1),
    Event(3, A, b"2", 2, 2),
    Event(4, A, b"3", 2, 3), Event(4, B, b"3", 4, 1),
    Event(5, A, None),
    Event(6, A, b"4", 6, 1),
]  # fmt: skip


def write(began: int, revision: int, *pairs: tuple[bytes, bytes | None], outcome: Outcome = Outcome.OK,
          reads: tuple[tuple[bytes, bytes | None], ...] = ()) -> Operation:
    return Operation(began, began + 5, outcome, reads, pairs, revision)


def read(began: int, revision: int, *pairs: tuple[bytes, bytes | None]) -> Operation:
    return Operation(began, began + 5, Outcome.OK, pairs, (), revision)


HISTORY = [
    write(0, 2, (A, b"1")),
    read(10, 2, (A, b"1"), (B, None)),
    write(20, 3, (A, b"2"), reads=((A, b"1"),)),
    write(30, 4, (A, b"3"), (B, b"3")),
    read(40, 4, (A, b"3"), (B, b"3")),
    write(50, 5, (A, None), reads=((A, b"3"),)),
    write(60, 6, (A, b"4"), reads=((A, None),)),
    read(70, 6, (A, b"4")),
]


def problems_with(index: int, operation: Operation) -> str:
    changed = [*HISTORY[:index], operation, *HISTORY[index + 1 :]]
    return "\n".join(check_operations(changed, STREAM))


def test_a_good_history_has_no_problems() -> None:
    assert check_stream(STREAM, 2, 6) == []
    assert check_operations(HISTORY, STREAM) == []


def test_a_stream_with_a_gap_a_repeat_or_an_early_end_is_caught() -> None:
    assert check_stream([*STREAM[:1], *STREAM[2:]], 2, 6)[0] == "revisions 3 to 3 are missing"
    assert check_stream(STREAM[1:], 2, 6)[0] == "revisions 2 to 2 are missing"
    assert check_stream([*STREAM[:2], *STREAM[1:]], 2, 6)[0] == "revision 3 tells of a twice"
    assert check_stream([*STREAM[:3], STREAM[1], *STREAM[3:]], 2, 6)[0] == "revision 3 comes again after 4"
    assert check_stream(STREAM[:-1], 2, 6) == ["the stream ends at revision 5, want 6"]


def test_a_stream_whose_versions_do_not_follow_is_caught() -> None:
    assert "want 2 and 2" in check_stream([STREAM[0], replace(STREAM[1], version=1), *STREAM[2:]], 2, 6)[0]
    assert (
        "want 6 and 1"
        in check_stream([*STREAM[:-1], replace(STREAM[-1], create_revision=2, version=4)], 2, 6)[0]
    )
    assert "was not there" in check_stream([Event(2, A, None)], 2, 2)[0]


def test_a_lost_write_is_caught() -> None:
    assert "not in the history" in problems_with(2, replace(HISTORY[2], revision=7))
    assert "not in the history" in problems_with(2, replace(HISTORY[2], writes=((A, b"9"),)))
    assert "not in the history" in problems_with(3, replace(HISTORY[3], writes=((A, b"3"),)))


def test_a_doubled_write_is_caught() -> None:
    stream = [*STREAM, Event(7, A, b"4", 6, 2)]
    assert check_operations(HISTORY, stream)[0] == "value 4 was written at 6 and 7"


def test_a_revision_told_to_two_writers_is_caught() -> None:
    assert "told to somebody else" in "\n".join(check_operations([*HISTORY, replace(HISTORY[-2])], STREAM))


def test_a_stale_read_is_caught() -> None:
    assert "stale: revision 4 was known" in problems_with(4, read(40, 3, (A, b"2"), (B, None)))


def test_a_read_that_shows_another_state_than_its_revision_is_caught() -> None:
    assert "a was b'3' at revision 4" in problems_with(4, read(40, 4, (A, b"2"), (B, b"3")))


def test_a_torn_snapshot_is_caught() -> None:
    assert "b was None at revision 3" in problems_with(4, read(25, 3, (A, b"2"), (B, b"3")))


def test_writes_against_real_time_are_caught() -> None:
    assert "known before it began" in problems_with(2, replace(HISTORY[2], invoked_ns=36, returned_ns=37))


def test_a_swap_that_compared_with_something_else_is_caught() -> None:
    assert "not b'7'" in problems_with(2, replace(HISTORY[2], reads=((A, b"7"),)))


def test_an_ambiguous_write_may_be_there_or_not() -> None:
    assert problems_with(2, replace(HISTORY[2], outcome=Outcome.AMBIGUOUS)) == ""
    assert problems_with(5, replace(HISTORY[5], outcome=Outcome.AMBIGUOUS, reads=())) == ""
    never = write(0, 0, (A, b"8"), outcome=Outcome.AMBIGUOUS)
    assert (
        check_operations([*HISTORY, never, write(0, 0, (A, None), outcome=Outcome.AMBIGUOUS)], STREAM) == []
    )


def test_an_ambiguous_write_takes_effect_whole_and_not_before_it_began() -> None:
    late = replace(HISTORY[2], outcome=Outcome.AMBIGUOUS, invoked_ns=36)
    assert "before it began" in problems_with(2, late)
    late = replace(HISTORY[5], outcome=Outcome.AMBIGUOUS, invoked_ns=66, reads=())
    assert "before it began" in problems_with(5, late)
    half = replace(HISTORY[3], outcome=Outcome.AMBIGUOUS, writes=((A, b"3"), (B, b"3"), (b"c", b"3")))
    assert "in part" in problems_with(3, half)
    against = replace(HISTORY[2], outcome=Outcome.AMBIGUOUS, reads=((A, b"7"),))
    assert "although" in problems_with(2, against)


def test_a_failed_write_that_took_effect_is_caught() -> None:
    assert "failed for certain" in problems_with(2, replace(HISTORY[2], outcome=Outcome.FAILED))


def test_a_revision_that_nobody_wrote_is_caught() -> None:
    assert check_operations(HISTORY, [*STREAM, Event(7, B, b"x", 4, 2)])[0].startswith(
        "nobody wrote revision 7"
    )
    assert check_operations(HISTORY, [*STREAM, Event(7, A, None)])[0].startswith("nobody wrote revision 7")

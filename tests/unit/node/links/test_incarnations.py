"""H10: a member is the data directory that it first was, for those too that never heard it."""

from __future__ import annotations

from node.links.incarnations import Incarnations


class Memory:
    """A log database's notes; what was not synced is lost."""

    def __init__(self) -> None:
        self.synced: dict[str, bytes] = {}
        self._written: dict[str, bytes] = {}

    def meta(self, name: str) -> bytes | None:
        return self._written.get(name, self.synced.get(name))

    def set_meta(self, name: str, value: bytes) -> None:
        self._written[name] = value

    def sync(self) -> None:
        self.synced.update(self._written)
        self._written.clear()


def of(memory: Memory, agreed: dict[int, int] | None = None) -> Incarnations:
    return Incarnations(1, 11, (1, 2, 3), memory, agreed or {})


def test_whom_this_replica_has_heard_is_known_after_a_crash() -> None:
    memory = Memory()
    assert of(memory).accept(2, 22)
    memory._written.clear()
    again = of(memory)
    assert again.accept(2, 22)
    assert not again.accept(2, 99)


def test_an_emptied_member_is_refused_by_one_that_never_heard_it() -> None:
    memory = Memory()
    incarnations = of(memory)
    assert incarnations.agree([(2, 22), (3, 33)]) == []
    assert not incarnations.accept(2, 99)
    assert incarnations.accept(2, 22)
    assert not of(Memory(), {2: 22}).accept(2, 99)  # agreed before it was started


def test_what_was_agreed_is_known_after_a_crash_that_took_what_was_applied() -> None:
    memory = Memory()
    assert of(memory).agree([(2, 22), (3, 33)]) == []
    memory._written.clear()
    again = of(memory)  # nothing is agreed there until the feed has brought the record once more
    assert not again.accept(2, 99)
    assert again.accept(2, 22)


def test_a_restart_forgets_nobody_who_joined_later() -> None:
    memory = Memory()
    assert of(memory).accept(4, 44)  # no member of the beginning: a start does not look for it
    again = of(memory, {4: 99})  # a leader had heard it once it was emptied, and no sooner
    assert again.agree(()) == [4]
    assert not again.accept(4, 99)
    assert not of(memory).accept(4, 99), "nor has its memory changed"


def test_the_tail_of_the_log_speaks_too_before_anybody_knows_that_it_is_committed() -> None:
    memory = Memory()
    incarnations = Incarnations(1, 11, (1, 2, 3), memory, {}, lambda: [(2, 22)])
    assert not incarnations.accept(2, 99)
    assert memory.meta("incarnation/2") is None
    assert incarnations.accept(2, 22)


def test_who_was_heard_is_logged_once_a_term_until_it_is_agreed() -> None:
    incarnations = of(Memory())
    incarnations.accept(2, 22)
    assert sorted(incarnations.to_log(5)) == [(1, 11), (2, 22)]
    assert incarnations.to_log(5) == []
    incarnations.accept(3, 33)
    assert incarnations.to_log(5) == [(3, 33)]
    incarnations.agree([(1, 11), (2, 22)])
    assert incarnations.to_log(6) == [(3, 33)]  # another term: what term 5 had logged may be lost


def test_what_is_agreed_speaks_against_those_already_accepted_and_against_oneself() -> None:
    incarnations = of(Memory())
    assert incarnations.accept(2, 99)
    assert incarnations.agree([(1, 10), (2, 22)]) == [1, 2]
    assert not incarnations.accept(2, 99)


def test_nobody_is_held_to_incarnation_nought() -> None:
    incarnations = Incarnations(1, 0, (1, 2), Memory(), {})
    assert incarnations.accept(2, 0)
    assert incarnations.to_log(1) == []
    assert incarnations.agree([(1, 7)]) == []

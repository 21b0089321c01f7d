"""Between large writes a leader rests as long as they took, while others ask; alone nobody waits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cluster.features.auth.principal import NOBODY, SAID
from cluster.pacing.resting import (
    BURST_BYTES,
    LARGE_BYTES,
    LITTLE_BYTES,
    LONGEST_MS,
    MOST_BYTES,
    OTHERS_MS,
    OVERDUE_MS,
    Resting,
)
from cluster.wire.messages import Method
from node.links.fronts import NODE_IDENTITY, FrontLink
from node.replica.pacing.large import LargeWrites
from tests.unit.pacing.test_gathering import Clock

MB = 1 << 20
TOOK_S = 0.03


def test_nothing_waits_while_nobody_else_asks() -> None:
    resting: Resting[str] = Resting()
    assert all(resting.enter(MB, name, 0.0) for name in "abc")
    resting.ended(30.0)
    assert resting.enter(MB, "d", 30.0)
    assert not len(resting)


def test_beside_others_one_is_on_its_way_and_then_as_much_time_passes() -> None:
    resting: Resting[str] = Resting()
    resting.heard(0.0)
    assert resting.enter(MB, "a", 0.0)
    assert not resting.enter(MB, "b", 1.0)
    assert resting.next(20.0) is None
    resting.ended(30.0)
    assert resting.next(59.0) is None
    assert resting.next(60.0) == "b"
    assert resting.rested_ms == 30.0


def test_small_ones_of_them_go_together_and_none_overtakes() -> None:
    resting: Resting[str] = Resting()
    resting.heard(0.0)
    quarter = BURST_BYTES // 4
    assert [resting.enter(quarter, name, 0.0) for name in "abcde"] == [True, True, True, True, False]
    assert not resting.enter(1, "one there is room for", 0.0)
    resting.ended(10.0)
    assert not resting.enter(1, "last", 20.0)
    assert [resting.next(20.0) for _ in range(4)] == ["e", "one there is room for", "last", None]


def test_small_ones_of_them_wait_for_one_larger_one_at_most() -> None:
    resting: Resting[str] = Resting()
    resting.heard(0.0)
    assert resting.enter(MB, "a", 0.0)
    for size, name in [(MB, "b"), (MB, "c"), (20_000, "small"), (20_000, "another")]:
        assert not resting.enter(size, name, 1.0)
    resting.ended(30.0)
    order = []
    now_ms = 60.0
    while len(resting):
        while (name := resting.next(now_ms)) is not None:
            order.append(name)
        resting.heard(now_ms)
        resting.ended(now_ms + 1)
        now_ms += 2
    assert order == ["small", "b", "another", "c"]


def test_after_few_bytes_there_is_no_rest() -> None:
    resting: Resting[str] = Resting()
    resting.heard(0.0)
    assert resting.enter(LITTLE_BYTES, "a", 0.0)
    resting.ended(10.0)
    assert resting.enter(LITTLE_BYTES + 1, "b", 10.0)
    resting.ended(20.0)
    assert not resting.enter(1, "c", 20.0)
    assert resting.rested_ms == 10.0


def test_a_rest_is_bounded_whatever_the_disk_does() -> None:
    resting: Resting[str] = Resting()
    resting.enter(MB, "a", 0.0)
    resting.heard(4999.0)
    resting.ended(5000.0)
    assert resting.until_ms == 5000.0 + LONGEST_MS


def test_beyond_so_many_bytes_that_wait_the_first_go_on_without_a_rest() -> None:
    resting: Resting[int] = Resting()
    resting.heard(0.0)
    most = MOST_BYTES // MB
    assert [resting.enter(MB, place, 1.0) for place in range(most + 1)] == [True] + most * [False]
    assert resting.next(1.0) is None
    assert not resting.enter(MB, most + 1, 1.0)
    assert [resting.next(1.0), resting.next(1.0)] == [1, None]
    assert resting.waiting_bytes == MOST_BYTES
    assert len(resting.drain()) == most
    assert resting.waiting_bytes == 0


def test_once_the_others_are_silent_all_go_on() -> None:
    resting: Resting[str] = Resting()
    resting.heard(0.0)
    resting.enter(MB, "a", 0.0)
    assert [resting.enter(MB, name, 1.0) for name in "bc"] == [False, False]
    assert [resting.next(OTHERS_MS) for _ in range(3)] == ["b", "c", None]


def test_only_what_has_begun_ends() -> None:
    with pytest.raises(AssertionError):
        Resting[str]().ended(0.0)


class Leader:
    """A node that logs what it takes in at once; a tick runs when the test says so."""

    def __init__(self) -> None:
        self.loop: Any = Clock()
        self.raft: Any = SimpleNamespace(is_leader=True, last_index=10)
        self.role: Any = SimpleNamespace(queued=0)
        self.applied_index = 10
        self.taken: list[int] = []
        self.large = LargeWrites(self, self._take)
        self.front = FrontLink(b"front", lambda parts: True, b"", 1)

    def wake(self) -> None:
        pass

    def _take(self, link: FrontLink, requests: list[tuple[int, int, int, bytes]]) -> None:
        self.taken += [rid for rid, *_ in requests]
        self.raft.last_index += 1

    def ask(self, rid: int, size: int, method: int = Method.PUT, link: FrontLink | None = None) -> None:
        self.large.requests(link or self.front, [(rid, method, 1000, bytes(size))])
        self.tick()

    def tick(self) -> None:
        self.large.look()

    def apply(self, after_s: float = TOOK_S) -> None:
        self.loop.pass_(after_s)
        self.applied_index = self.raft.last_index
        self.tick()


@pytest.fixture
def leader() -> Leader:
    found = Leader()
    found.ask(1, MB)
    found.ask(2, 100)
    return found


def test_a_large_write_waits_for_the_one_before_it_and_for_the_rest_after_that(leader: Leader) -> None:
    leader.ask(3, MB)
    leader.ask(4, MB)
    leader.apply()
    assert leader.taken == [1, 2]
    leader.loop.pass_(TOOK_S / 2)
    leader.ask(5, 100)
    assert leader.taken == [1, 2, 5]  # a small one never waits
    leader.loop.pass_(TOOK_S / 2 + 0.001)
    assert leader.taken == [1, 2, 5, 3]
    assert (leader.large.held, len(leader.loop.timers)) == (2, 0)


def test_what_is_queued_at_the_leader_still_is_not_done(leader: Leader) -> None:
    leader.apply()
    leader.loop.pass_(1.1 * TOOK_S)
    leader.role.queued = 1
    leader.ask(3, MB)  # passed on, and not in the log yet
    assert leader.taken == [1, 2, 3]
    leader.apply()
    leader.ask(4, MB)
    leader.role.queued = 0
    leader.raft.last_index += 1
    leader.tick()
    leader.loop.pass_(TOOK_S)
    assert leader.taken == [1, 2, 3]
    leader.apply()
    leader.loop.pass_(1.0)
    assert leader.taken == [1, 2, 3, 4]


def test_a_queue_that_is_never_empty_holds_nobody_up_for_ever(leader: Leader) -> None:
    leader.apply()
    leader.loop.pass_(1.1 * TOOK_S)
    leader.role.queued = 1
    leader.ask(3, MB)
    leader.ask(4, MB)
    leader.apply(0.6 * OVERDUE_MS / 1000)
    leader.ask(5, 100)  # others still ask
    leader.apply(0.3 * OVERDUE_MS / 1000)
    leader.loop.pass_(0.05)
    assert leader.taken == [1, 2, 3, 5]
    leader.apply(0.1 * OVERDUE_MS / 1000)
    leader.loop.pass_(LONGEST_MS / 1000 + 0.001)
    assert leader.taken == [1, 2, 3, 5, 4]


def test_a_frame_is_parted(leader: Leader) -> None:
    leader.large.requests(leader.front, [(3, Method.PUT, 1000, b"x"), (4, Method.PUT, 1000, bytes(MB)),
                                         (5, Method.READ_INDEX, 1000, b"")])
    assert leader.taken == [1, 2, 3, 5]


@pytest.mark.parametrize("method", [Method.LONE, Method.WIDE, Method.LEASE_REVOKE, Method.READ_INDEX])
def test_whoever_asks_for_something_small_is_heard(method: int) -> None:
    leader = Leader()
    leader.ask(1, MB)
    leader.ask(2, 100, method | SAID)
    leader.ask(3, MB)
    assert leader.taken == [1, 2]


def test_beyond_so_many_bytes_they_wait_for_no_rest(leader: Leader) -> None:
    for rid in range(3, 4 + MOST_BYTES // MB):
        leader.ask(rid, MB)
    assert leader.taken == [1, 2, 3]


def test_writes_with_a_name_wait_like_those_without(leader: Leader) -> None:
    who = NOBODY.encode()
    leader.large.requests(leader.front, [(3, Method.PUT | SAID, 1000, who + bytes(MB))])
    assert leader.taken == [1, 2]


@pytest.mark.parametrize("method", [Method.WIDE, Method.RANGE])
def test_other_requests_never_wait(leader: Leader, method: int) -> None:
    leader.ask(3, MB, method)
    assert leader.taken == [1, 2, 3]


def test_nor_does_what_another_shards_node_says(leader: Leader) -> None:
    leader.ask(3, MB, link=FrontLink(NODE_IDENTITY + b"1", lambda parts: True, b"", 1))
    assert leader.taken == [1, 2, 3]


def test_when_the_lead_is_lost_whoever_waits_is_told_who_leads(leader: Leader) -> None:
    leader.ask(3, MB)
    leader.raft.is_leader = False
    leader.tick()
    assert leader.taken == [1, 2, 3]
    leader.ask(4, MB)
    assert leader.taken == [1, 2, 3, 4]
    leader.raft.is_leader = True
    leader.ask(5, MB)  # nothing of the lost term is under way any more
    assert leader.taken == [1, 2, 3, 4, 5]


def test_what_nobody_waits_for_any_more_is_not_taken_in(leader: Leader) -> None:
    leader.ask(3, MB)
    leader.ask(4, MB)
    leader.front.overdue = 3
    leader.apply()
    leader.loop.pass_(1.1 * TOOK_S)
    leader.tick()  # the third was under way in name only
    leader.loop.pass_(0.001)
    assert leader.taken == [1, 2, 4]


def test_without_small_requests_nobody_waits() -> None:
    leader = Leader()
    for rid in range(3):
        leader.ask(rid, LARGE_BYTES + 1)
    assert leader.taken == [0, 1, 2]


def test_a_node_that_closes_has_no_timer_left(leader: Leader) -> None:
    leader.ask(3, MB)
    leader.apply()
    leader.large.close()
    leader.loop.pass_(1.0)
    assert leader.taken == [1, 2]


def test_a_rest_is_over_when_its_timer_ends_whatever_the_clock_rounds_to() -> None:
    """A clock that stands still, as the simulator's, would have the timer begin again for ever."""
    for step in range(1000):  # the clock of a few of them rounds to just before
        leader = Leader()
        leader.loop.now = 0.6 + step / 997
        leader.ask(1, MB)
        leader.ask(2, 100)
        leader.apply(TOOK_S + step / 9973)
        leader.ask(3, MB)
        timer = leader.loop.timers.pop()
        leader.loop.now = timer.when  # and not a moment later
        timer.callback()
        assert (leader.taken, leader.loop.timers) == ([1, 2, 3], []), f"step {step}"

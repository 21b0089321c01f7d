"""Answers of several shards' leaders leave together, in their order, and soon."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cluster.wire.messages import Method, Status
from proxy.routing.rounds import BUSY, LONGEST_S, Rounds
from proxy.routing.waiting import READ_ANY, WRITE
from tests.unit.proxy.fakes import FakeCall, Net

OK = int(Status.OK)


class Clock:
    """Timers go off when time is told to pass."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Any]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay_s: float, callback: Any) -> None:
        self.timers.append((self.now + delay_s, callback))

    def pass_(self, seconds: float) -> None:
        self.now += seconds
        due = [t for t in self.timers if t[0] <= self.now]
        self.timers = [t for t in self.timers if t[0] > self.now]
        for _, callback in due:
            callback()


class Leader:
    """A link to one, with requests under way."""

    def __init__(self, front: Front, pending: int = 10 * BUSY) -> None:
        self.front = front
        self.pending: dict[int, Any] = {rid: SimpleNamespace(route=WRITE) for rid in range(pending)}
        self.parts: dict[int, object] = {}
        self.told: list[int] = []  # rids, in order

    def take(self, answers: list[tuple[int, int, bytes]]) -> None:
        self.told += [rid for rid, _, _ in answers]

    def answers(self, first: int, count: int = BUSY) -> None:
        """A frame of answers comes."""
        self.frame([(rid, OK, b"") for rid in range(first, first + count)])

    def frame(self, answers: list[tuple[int, int, bytes]]) -> None:
        link: Any = self
        self.take(self.front.rounds.sift(link, answers))


class Front:
    def __init__(self) -> None:
        self.clock = Clock()
        self.leaders: list[Leader] = []
        loop: Any = self.clock
        leaders: Any = lambda: self.leaders  # noqa: E731 # the links are fakes
        self.scarce = True
        self.rounds = Rounds(loop, leaders, lambda: self.scarce)

    def leader(self, pending: int = 10 * BUSY) -> Leader:
        self.leaders.append(Leader(self, pending))
        return self.leaders[-1]


@pytest.fixture
def front() -> Front:
    return Front()


def test_answers_wait_for_those_of_the_other_busy_leaders(front: Front) -> None:
    a, b, c = front.leader(), front.leader(), front.leader()
    a.answers(0)
    front.clock.pass_(0.002)
    b.answers(0)
    assert a.told == b.told == []
    front.clock.pass_(0.002)
    c.answers(0)
    assert a.told == b.told == c.told == list(range(BUSY))


def test_nobody_waits_for_a_leader_with_little_to_do(front: Front) -> None:
    a, _ = front.leader(), front.leader(pending=BUSY - 1)
    a.answers(0)
    assert a.told == list(range(BUSY))


def test_with_cpus_to_spare_nothing_waits(front: Front) -> None:
    a, b = front.leader(), front.leader()
    a.answers(0)
    assert a.told == []
    front.scarce = False
    b.answers(0)
    assert a.told == b.told == list(range(BUSY))  # what was kept, too
    a.answers(BUSY)
    assert a.told == list(range(2 * BUSY))


def test_few_answers_do_not_wait(front: Front) -> None:
    a, _ = front.leader(), front.leader()
    a.answers(0, count=BUSY - 1)
    assert len(a.told) == BUSY - 1


def test_a_link_with_watches_is_passed_on_at_once(front: Front) -> None:
    a, b = front.leader(), front.leader()
    a.parts[1] = object()
    a.answers(0)
    assert a.told == list(range(BUSY))
    b.answers(0)  # the last of the round
    assert b.told == list(range(BUSY))


def test_only_answers_to_writes_are_kept(front: Front) -> None:
    a, _ = front.leader(), front.leader()
    a.pending[3] = SimpleNamespace(route=READ_ANY)
    others = [
        (0, int(Status.WATERMARK), bytes(8)), (3, OK, b""), (4, int(Status.NOT_LEADER), b""), (999, OK, b""),
    ]
    a.frame([(rid, OK, b"") for rid in range(10, 10 + BUSY)] + others)
    assert a.told == [0, 3, 4, 999]
    front.clock.pass_(LONGEST_S)
    assert a.told == [0, 3, 4, 999, *range(10, 10 + BUSY)]


def test_a_leader_that_answers_a_second_time_ends_the_round(front: Front) -> None:
    a, _ = front.leader(), front.leader()
    a.answers(0)
    a.answers(BUSY)
    assert a.told == list(range(BUSY))
    front.clock.pass_(LONGEST_S)
    assert a.told == list(range(2 * BUSY))


def test_the_wait_follows_what_the_others_take(front: Front) -> None:
    a, b = front.leader(), front.leader()
    for round_ in range(200):
        front.clock.pass_(1.0)
        a.answers(round_ * BUSY)
        front.clock.pass_(0.002)
        b.answers(round_ * BUSY)
    front.clock.pass_(1.0)
    a.told.clear()
    a.answers(0)
    front.clock.pass_(0.003)
    assert a.told == []
    front.clock.pass_(0.002)
    assert a.told == list(range(BUSY))


def test_waits_in_vain_become_rare(front: Front) -> None:
    a, _ = front.leader(), front.leader()
    kept = 0
    for _ in range(200):
        front.clock.pass_(1.0)
        before = len(a.told)
        a.answers(0)
        kept += len(a.told) == before
        front.clock.pass_(LONGEST_S)
        assert len(a.told) == before + BUSY
    assert kept < 15


def busy_net() -> tuple[Net, list[list[FakeCall]]]:
    """A front with requests under way at both shards' leaders."""
    net = Net(shards=2).started(leader=1)
    calls: list[list[FakeCall]] = [[], []]
    for shard in (0, 1):
        for _ in range(2 * BUSY):
            calls[shard].append(FakeCall())
            net.router.write(calls[shard][-1], Method.PUT, b"\x0a\x01k", shard, net.router.quiet)
    net.run()
    return net, calls


def test_a_front_keeps_the_answers_of_one_shard_for_those_of_the_other() -> None:
    net, calls = busy_net()
    for shard in (0, 1):
        node = net.every[shard, 1]
        for request in node.take(Method.PUT):
            node.ok(request, revision=5 + shard)
        node.flush(net.loop.now)
        assert [call.status for call in calls[0]] == [(0, "") if shard else None] * 2 * BUSY
    assert {call.status for call in calls[1]} == {(0, "")}


def test_what_is_kept_is_answered_when_its_link_ends() -> None:
    net, calls = busy_net()
    node = net.every[0, 1]
    for request in node.take(Method.PUT)[:BUSY]:
        node.ok(request)
    node.flush(net.loop.now)
    assert {call.status for call in calls[0]} == {None}
    net.cut(1)
    assert [call.status == (0, "") for call in calls[0]] == [True] * BUSY + [False] * BUSY
    assert None not in {call.status for call in calls[0]}

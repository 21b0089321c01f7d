"""A move's switch at the coordinator, and the sequencer's machine that asks for it."""

from __future__ import annotations

import pytest

from cluster.effects.records import Item, items
from cluster.errors import EtcdError
from cluster.features.moves import (
    MOST_KEY_BYTES,
    MOST_TABLE_BYTES,
    Wish,
    cancel_body,
    check_cancel,
    check_move,
    read_cancel,
)
from cluster.order.log import Attempt, Cut, decode_multi
from cluster.order.moving.generations import Generations
from cluster.order.moving.hold import Hold
from cluster.order.moving.mover import (
    FIRST_PAUSE_MS,
    NO_ROOM_LAG_MS,
    PATIENCE_MS,
    UNKNOWN_LAG_MS,
    Copied,
    Hosts,
    Mover,
    Step,
)
from cluster.order.moving.switch import LIMIT_MS, Switch, limit_of
from cluster.order.prepare import Base, Grant, Prepare, sent_at
from cluster.pb import rpc_pb2 as pb
from cluster.placement.changes import (
    Moved,
    move_item,
    moved_item,
    read_moved,
    take,
    take_move,
    take_moved,
)
from cluster.placement.table import Move, Table
from cluster.wire.messages import Method
from tests.unit.order.sequencing.test_coordinator import TERM, Sequencer, key_of

ALL = frozenset((1, 2, 3))


class Moving(Sequencer):
    """A key moves from one shard to another."""

    def __init__(self, source: int = 1, target: int = 2) -> None:
        super().__init__()
        self.key = key_of(source, self.placement)
        self.move = Move(1, self.key, self.key + b"\0", (source,), target)
        self.ended: list[bool] = []
        self.asked: list[tuple[int, Prepare]] = []
        self.copied = 0

    def switch(self, now_ms: int = 0) -> None:
        def copied(base: Base) -> bool:
            return self.copied >= base.revision

        self.coordinator.switch(Switch(self.move, copied, self.ended.append), now_ms)

    def run(self, now_ms: int) -> None:
        self.coordinator.run(now_ms, self._append)
        self.asked += [(message.shard, Prepare.decode(message.body))
                       for message in self.coordinator.take_messages() if message.method == Method.PREPARE]

    @property
    def last(self) -> Attempt:
        return self.asked[-1][1].attempt

    def grants(self, shard: int, revision: int, live: int | None = None) -> None:
        counts = {} if live is None else {0: live}
        rows: list[list[tuple[bytes, bytes]]] = [[] for _ in counts]
        body = Grant(TERM, rows, [], counts, revision=revision).encode()
        self.coordinator.granted(self.last, shard, Grant.decode(body))


def test_sources_are_asked_first_and_the_target_for_their_revision() -> None:
    moving = Moving()
    moving.switch()
    moving.run(0)
    (shard, lock), = moving.asked
    assert (shard, lock.base) == (1, Base(1, 0))
    assert [(t.key, t.write) for t in lock.touches] == [(moving.key, True)]
    moving.grants(1, 40, live=1)
    moving.run(1)
    shard, promise = moving.asked[-1]
    assert (shard, promise.base, promise.touches) == (2, Base(1, 40, 1), [])
    moving.grants(2, 44)
    moving.run(2)
    record, = moving.items
    (kind, at, to), (ended, moved, _) = items(record)
    assert (kind, ended) == (Item.MULTI, Item.MOVED)
    multi = decode_multi(record, at, to)
    assert (multi.groups, multi.parts, multi.participants) == (0, [], {1: TERM, 2: TERM})  # G2, I10
    assert read_moved(record, moved)[:] == (1, True, 40, 1)
    assert moving.ended == [True]


def test_what_is_asked_of_a_switch_survives_the_wire() -> None:
    asked = Prepare(Attempt(3, 4), 2, 9, base=Base(5, 6))
    assert Prepare.decode(asked.encode()) == asked
    asked.sent_at = 11
    assert Prepare.decode(sent_at(Prepare(Attempt(3, 4), 2, 9, base=Base(5, 6)).encode(), 11)) == asked


def test_i10_a_switch_rests_on_the_latest_terms() -> None:
    moving = Moving()
    moving.switch()
    moving.run(0)
    moving.grants(1, 40, live=1)
    moving.run(1)
    moving.coordinator.fold.cuts[1] = Cut(2, TERM + 1, 0)  # another leader of the source is in order
    moving.grants(2, 44)
    moving.run(2)
    assert moving.ended == [False]
    assert not moving.items


def test_g15_a_switch_lets_go_in_time() -> None:
    moving = Moving()
    moving.switch()
    moving.run(0)
    moving.grants(1, 40, live=1)
    moving.submit("wide")
    moving.run(LIMIT_MS - 1)
    assert not moving.ended
    moving.run(LIMIT_MS)
    assert moving.ended == [False]
    assert moving.asked[-1][1].base is None  # the one that waited has begun


def test_shard_0_as_a_target_looks_at_its_own_copy() -> None:
    moving = Moving(target=0)
    moving.switch()
    moving.run(0)
    moving.grants(1, 40, live=1)
    moving.run(1)
    assert not moving.items
    moving.copied = 40
    moving.run(2)
    assert moving.ended == [True]


@pytest.mark.parametrize("broken", [False, True])
def test_g4_a_hold_of_shard_0_that_an_end_of_leases_breaks_starts_over(broken: bool) -> None:
    moving = Moving(source=0)
    moving.switch()
    moving.run(0)
    hold = moving.coordinator.hold
    assert hold is not None
    assert hold.holds(Method.PUT, pb.PutRequest(key=moving.key).SerializeToString())
    assert not hold.holds(Method.PUT, pb.PutRequest(key=b"other").SerializeToString())
    moving.run(1)
    assert moving.asked[-1][1].base == Base(1, hold.revision)
    moving.grants(2, 44)
    hold.written([moving.key if broken else b"other"])
    moving.run(2)
    assert moving.ended == [not broken]
    assert (moving.coordinator.hold is None) is broken  # else it lasts until the record is applied


def test_g4_a_hold_is_broken_by_what_is_in_its_span() -> None:
    hold = Hold((b"a", b"c"), 5)
    hold.written([b"c"])
    assert not hold.broken
    hold.written([b"b"])
    assert hold.broken


def test_g8_an_attempt_begun_before_a_change_starts_over_behind_it() -> None:
    moving = Moving()
    coordinator = moving.coordinator
    moving.submit("wide")
    moving.run(0)
    first = moving.last
    coordinator.generations.appended()
    for shard in (1, 2):
        coordinator.granted(first, shard, Grant(TERM, [[]], []))
    moving.run(1)
    assert not moving.items
    coordinator.logged(60)
    moving.run(2)
    assert moving.last == first  # nothing begins before the sequencer has applied the change
    coordinator.generations.applied(60)
    moving.run(3)
    assert moving.last > first
    assert moving.asked[-1][1].order_index == 60


def test_g8_one_change_after_the_other() -> None:
    generations = Generations()
    generations.appended()
    assert not generations.settled
    generations.logged(9)
    generations.logged(12)
    generations.applied(8)
    assert not generations.settled
    generations.applied(9)
    assert generations.settled
    assert generations.last == 9


class Machine:
    """A sequencer's mover, whose items are applied at once."""

    def __init__(self) -> None:
        self.moving = Moving()
        self.index = 10
        placement, self.coordinator = self.moving.placement, self.moving.coordinator
        self.placement = placement
        self.mover = Mover(placement, self.coordinator, lambda base: False)

    def append(self, item: bytes) -> None:
        self.index += 1
        for kind, at, to in items(item):
            self.placement.replace(take(self.placement.table, item, kind, at, to, 7))

    def applied(self) -> None:
        self.coordinator.logged(self.index)
        self.coordinator.generations.applied(self.index)

    def begin(self, target: int = 2) -> None:
        table, key = self.placement.table, self.moving.key
        self.append(move_item(check_move(table, Wish(key, key + b"\0", target), 7)))
        self.mover.begun()
        assert not self.mover.settled
        self.applied()

    def hear(self, *hosts: int, lag_ms: int = 5, now_ms: int = 0) -> None:
        for host in hosts:
            self.mover.heard(host, Copied(1, True, lag_ms), now_ms)

    def run(self, now_ms: int, live: frozenset[int] = ALL) -> Step:
        self.mover.run(now_ms, Hosts(ALL, live, {0: 1, 1: 1, 2: 2}))
        return self.mover.step


def test_a_switch_is_tried_once_all_live_hosts_are_close() -> None:
    machine = Machine()
    machine.begin()
    assert machine.run(0) is Step.COPYING
    machine.hear(1, 2)
    machine.hear(3, lag_ms=60)
    assert machine.run(1) is Step.COPYING
    machine.hear(3)
    assert machine.run(2) is Step.SWITCHING


def test_hosts_that_are_not_close_are_not_waited_for_for_ever() -> None:
    machine = Machine()
    machine.begin()
    machine.hear(1, 2, now_ms=PATIENCE_MS - 10)
    assert machine.run(0) is Step.COPYING
    assert machine.run(PATIENCE_MS - 1) is Step.COPYING
    assert machine.run(PATIENCE_MS) is Step.SWITCHING


@pytest.mark.parametrize("whole", [False, True])
def test_a_live_host_without_room_is_waited_for_until_it_has_some(whole: bool) -> None:
    """Where the order waits for a copy, that goes on beyond the quota, and to half of the disk's margin."""
    machine = Machine()
    machine.begin()
    machine.run(0)
    machine.hear(1, 2, now_ms=2 * PATIENCE_MS)
    machine.mover.heard(3, Copied(1, whole, NO_ROOM_LAG_MS), 0)  # and nothing since: its disk is full
    machine.mover.heard(4, Copied(1, whole, NO_ROOM_LAG_MS), 0)
    assert machine.run(2 * PATIENCE_MS, ALL | {4, 5}) is Step.COPYING
    assert machine.mover.facts()["waits_for"] == ["3"], "a learner is not waited for"
    assert machine.mover.late(2 * PATIENCE_MS)
    machine.mover.heard(3, Copied(1, False, UNKNOWN_LAG_MS), 2 * PATIENCE_MS)
    assert machine.run(2 * PATIENCE_MS) is Step.SWITCHING, "it has room again, and is late"


def test_a_host_without_room_that_is_away_is_not_waited_for() -> None:
    machine = Machine()
    machine.begin()
    machine.run(0)
    machine.hear(1, 2, now_ms=PATIENCE_MS)
    machine.mover.heard(3, Copied(1, False, NO_ROOM_LAG_MS), PATIENCE_MS)
    assert machine.run(PATIENCE_MS, frozenset((1, 2))) is Step.SWITCHING


def test_what_a_host_said_of_another_move_s_room_does_not_matter() -> None:
    machine = Machine()
    machine.begin()
    machine.run(0)
    machine.hear(1, 2, now_ms=PATIENCE_MS)
    machine.mover.heard(3, Copied(7, False, NO_ROOM_LAG_MS), PATIENCE_MS)
    assert machine.run(PATIENCE_MS) is Step.SWITCHING


def test_shard_0_as_a_target_needs_every_voter() -> None:
    machine = Machine()
    machine.begin(target=0)
    machine.hear(1, 2, now_ms=PATIENCE_MS)
    machine.run(0)
    assert machine.run(PATIENCE_MS + 1, frozenset((1, 2))) is Step.COPYING
    machine.hear(3, now_ms=PATIENCE_MS)
    assert machine.run(PATIENCE_MS + 2) is Step.SWITCHING


def test_pauses_double_and_ten_failures_are_an_alarm() -> None:
    machine = Machine()
    machine.begin()
    now_ms, pause_ms = 0, FIRST_PAUSE_MS
    for failed in range(10):
        machine.hear(1, 2, 3, now_ms=now_ms)
        assert not machine.mover.alarm
        assert machine.run(now_ms) is Step.SWITCHING
        machine.moving.run(now_ms + limit_of(failed) - 1)
        assert machine.mover.failed == failed
        machine.moving.run(now_ms + limit_of(failed))
        assert machine.mover.failed == failed + 1
        machine.hear(1, 2, 3, now_ms=now_ms + pause_ms - 1)
        assert machine.run(now_ms + pause_ms - 1) is Step.PAUSING
        now_ms, pause_ms = now_ms + pause_ms, min(2 * pause_ms, 64 * FIRST_PAUSE_MS)
    assert machine.mover.alarm


def test_a_switch_may_take_longer_once_two_have_failed() -> None:
    limits = [50, 50, 100, 200, 400, 800, 800]
    assert [limit_of(failed) for failed in range(7)] == limits
    assert limit_of(1000) == 800


def test_a_cancel_ends_the_switch_that_is_under_way() -> None:
    machine = Machine()
    machine.begin()
    machine.mover.stop()  # none is
    machine.hear(1, 2, 3)
    for started in (False, True):  # in the queue, or under way
        now_ms = started * 2 * FIRST_PAUSE_MS
        machine.hear(1, 2, 3, now_ms=now_ms)
        assert machine.run(now_ms) is Step.SWITCHING
        if started:
            machine.moving.run(now_ms)
        machine.mover.stop()
        assert machine.mover.step is Step.PAUSING
        assert not machine.coordinator.busy
        assert machine.coordinator.hold is None


def test_facts_name_each_host_that_was_heard() -> None:
    machine = Machine()
    assert machine.mover.facts() == {}
    machine.begin()
    machine.mover.heard(2, Copied.decode(Copied(1, True, 7, 30, 400).encode()), 0)
    machine.mover.heard(3, Copied(1, False, UNKNOWN_LAG_MS), 0)
    machine.mover.heard(4, Copied.decode(Copied(1, False, NO_ROOM_LAG_MS).encode()), 0)
    facts = machine.mover.facts()
    assert (facts["move"], facts["step"], facts["target"]) == (1, "copying", 2)
    assert facts["without_room"] == ["4"]
    assert facts["hosts"] == {"2": {"whole": True, "keys": 30, "bytes": 400, "lag_ms": 7},
                              "3": {"whole": False, "keys": 0, "bytes": 0, "lag_ms": -1},
                              "4": {"whole": False, "keys": 0, "bytes": 0, "lag_ms": -2}}


def test_hosts_that_a_move_waits_for_are_named() -> None:
    machine = Machine()
    machine.begin(target=0)
    machine.hear(1, 2)
    assert machine.run(0) is Step.COPYING
    assert machine.mover.facts()["waits_for"] == ["3"], "it is down"
    assert not machine.mover.late(PATIENCE_MS - 1)
    assert machine.mover.late(PATIENCE_MS)
    machine.hear(1, 2, 3, now_ms=PATIENCE_MS)
    assert machine.run(PATIENCE_MS) is Step.SWITCHING
    assert machine.mover.facts()["waits_for"] == []
    assert not machine.mover.late(PATIENCE_MS)


def test_a_shard_without_a_leader_is_no_host_that_a_move_waits_for() -> None:
    machine = Machine()
    machine.begin()
    machine.hear(1, 2, 3)
    machine.mover.run(0, Hosts(ALL, ALL, {0: 1, 1: 1}))
    assert machine.mover.step is Step.COPYING
    assert machine.mover.facts()["waits_for"] == []


def test_a_move_starves_while_a_copy_says_that_it_waits_for_room() -> None:
    machine = Machine()
    assert not machine.mover.starves(0)
    machine.begin()
    machine.mover.heard(3, Copied(7, False, NO_ROOM_LAG_MS), 0)
    machine.mover.heard(2, Copied(1, False, UNKNOWN_LAG_MS), 0)
    assert not machine.mover.starves(0)
    machine.mover.heard(2, Copied(1, False, NO_ROOM_LAG_MS), 0)
    assert machine.mover.starves(4999) == 1
    assert not machine.mover.starves(5000), "it said so long ago"
    machine.mover.step = Step.SWITCHING
    assert not machine.mover.starves(0)


def test_g11_g14_what_the_fold_would_not_take_is_refused() -> None:
    machine = Machine()
    key = machine.moving.key

    def refused(wish: Wish, why: str) -> None:
        with pytest.raises(EtcdError, match=why):
            check_move(machine.placement.table, wish, 7)

    refused(Wish(key, key + b"\0", 1), "owns a part")
    refused(Wish(key, key + b"\0", 9), "no shard 9")
    machine.begin()
    refused(Wish(b"x", b"y", 2), "move 1 is under way")
    moved(machine)
    refused(Wish(key, key + b"\0", 1), "up to revision 7")
    check_cancelled(machine)


def test_no_move_begins_once_the_table_is_large() -> None:
    """Bounds of the longest keys that may be, each of which the table has several times."""
    table = Machine().placement.table
    for number in range(1, MOST_TABLE_BYTES // MOST_KEY_BYTES):
        wish = long_key(table, number)
        if len(table.encode()) + 2 * MOST_KEY_BYTES > MOST_TABLE_BYTES:
            break
        changed = take_move(table, check_move(table, wish, 7), 7)
        table = take_moved(changed, Moved(number, True, 7, 0), 7)
    with pytest.raises(EtcdError, match="more than 1048576 bytes: compact"):
        check_move(table, wish, 7)
    assert number > 2


def long_key(table: Table, number: int) -> Wish:
    """A move of one key of the longest."""
    end = b"/%04d" % number + bytes(MOST_KEY_BYTES - 5)
    return Wish(end[:-1], end, 1 - table.owner(end[:-1]))


def moved(machine: Machine) -> None:
    machine.append(moved_item(Moved(1, True, 7, 0)))


def check_cancelled(machine: Machine) -> None:
    with pytest.raises(EtcdError, match="no move 1 "):
        check_cancel(machine.placement.table, 1)


def test_a_wish_is_what_was_encoded_or_refused() -> None:
    for wish in (Wish(b"a", b"b", 2), Wish(b"a\xff", b"\0", 65535)):
        assert Wish.decode(wish.encode()) == wish
    assert read_cancel(cancel_body(7)) == 7
    for body in (b"", b"\0" * 6, Wish(b"b", b"a", 1).encode(), Wish(b"a", b"", 1).encode(),
                 Wish(b"a" * (MOST_KEY_BYTES + 1), b"b", 1).encode()):
        with pytest.raises(EtcdError):
            Wish.decode(body)
    with pytest.raises(EtcdError):
        read_cancel(b"1")

"""The sequencer's part in transactions over several shards: what it gives up, when, and what becomes of
it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from cluster.evaluate.overlay import Overlay
from cluster.evaluate.view import Outcome
from cluster.order.log import Attempt, Cut, Fold
from cluster.order.prepare import Grant, Prepare, decode_attempt
from cluster.order.sequencing import coordinator, fates
from cluster.order.sequencing.coordinator import Coordinator, Wide
from cluster.pb import rpc_pb2 as pb
from cluster.placement import Placement
from cluster.placement.table import END, Piece
from cluster.wire.messages import Method
from cluster.wire.protobuf import key_value
from tests.unit.node.slicing.test_growth import GROWTH, grows
from tests.unit.order.stores import EmptyStore

HEARTBEAT_MS = 100
TERM = 3  # of every other shard's leader


def key_of(shard: int, placement: Placement, number: int = 0) -> bytes:
    """One of the keys there."""
    return [key for key in (b"k%d" % i for i in range(100)) if placement.shard_of(key) == shard][number]


class Sequencer:
    """A coordinator of a store with three shards, whose messages are looked at and answered by hand."""

    def __init__(self) -> None:
        self.placement = Placement(3, 1)
        self.gone: set[str] = set()
        self.coordinator = self.fresh()
        self.logged: list[str | None] = []
        self.items: list[bytes] = []
        self.prepares: list[tuple[int, Attempt]] = []
        self.released: list[tuple[int, Attempt]] = []
        self.body = pb.TxnRequest(success=[
            pb.RequestOp(request_put=pb.PutRequest(key=key_of(shard, self.placement), value=b"v"))
            for shard in range(3)]).SerializeToString()
        self.hear()

    def fresh(self) -> Coordinator[str]:
        """One that has heard of no leader yet."""
        return Coordinator(
            5, self.placement, Overlay(EmptyStore(leases=True)),
            Fold(7, {1: Cut(1, TERM, 0), 2: Cut(1, TERM, 0)}), max_txn_ops=128, heartbeat_ms=HEARTBEAT_MS,
            gone=lambda token: token in self.gone,
        )

    def hear(self, *shards: int) -> None:
        """Their leaders report; without a name all of them."""
        for shard in shards or (1, 2):
            self.coordinator.leader_of(shard, TERM)

    def submit(self, token: str, **named: int) -> None:
        assert self.coordinator.submit(token, Method.TXN, self.body, **named)

    def run(self, now_ms: int) -> None:
        """One turn; what it sends is added to what was sent."""
        self.coordinator.run(now_ms, self._append)
        for message in self.coordinator.take_messages():
            if message.method == Method.PREPARE:
                self.prepares.append((message.shard, Prepare.decode(message.body).attempt))
            else:
                self.released.append((message.shard, decode_attempt(message.body)))

    def grant(self, shard: int, attempt: Attempt) -> None:
        self.coordinator.granted(attempt, shard, Grant(TERM, [[]], []))

    @property
    def attempt(self) -> Attempt:
        return self.prepares[-1][1]

    def _append(self, item: bytes, outcome: Outcome, wide: Wide[str]) -> None:
        self.logged.append(wide.token)
        self.items.append(item)


@pytest.fixture
def sequencer() -> Sequencer:
    return Sequencer()


@pytest.mark.parametrize("takes_ms", [900, 1200, 3300])
def test_what_is_slow_to_prepare_is_done_all_the_same(sequencer: Sequencer, takes_ms: int) -> None:
    """A delete that shows several hundred thousand rows: its prepare takes longer than ten heartbeats each
    time."""
    sequencer.submit("slow")
    granted: set[tuple[int, Attempt]] = set()
    due: list[tuple[int, int, Attempt]] = []
    for now_ms in range(0, 60_000, 50):
        for at_ms, shard, attempt in due:
            if at_ms == now_ms:
                sequencer.grant(shard, attempt)
        sequencer.run(now_ms)
        for prepare in sequencer.prepares:
            if prepare not in granted:
                granted.add(prepare)
                due.append((now_ms + takes_ms, *prepare))
    assert sequencer.logged == ["slow"]
    assert len({attempt for _, attempt in sequencer.prepares}) <= 2


def test_h19_nothing_is_locked_for_a_shard_that_has_not_granted_until_its_leader_is_heard_of(
    sequencer: Sequencer,
) -> None:
    """Its leader has died, and nobody has said so."""
    sequencer.submit("wide")
    sequencer.run(0)
    first = sequencer.attempt
    sequencer.grant(1, first)
    sequencer.run(10 * HEARTBEAT_MS)
    assert sequencer.released == [(1, first), (2, first)]
    sequencer.hear(1)
    for now_ms in range(10 * HEARTBEAT_MS, 100 * HEARTBEAT_MS, HEARTBEAT_MS):
        sequencer.run(now_ms)
    assert sequencer.attempt == first
    sequencer.hear(2)
    sequencer.run(100 * HEARTBEAT_MS)
    second = sequencer.attempt
    assert second > first
    for shard in (1, 2):
        sequencer.grant(shard, second)
    sequencer.run(101 * HEARTBEAT_MS)
    assert sequencer.logged == ["wide"]


def test_what_has_waited_past_its_deadline_is_not_done(sequencer: Sequencer) -> None:
    """Its front has said that it timed out, long before its shard comes back."""
    sequencer.coordinator = sequencer.fresh()
    sequencer.submit("late", deadline_ms=7_000)
    sequencer.submit("patient", deadline_ms=100_000)
    sequencer.run(0)
    sequencer.run(60_000)
    sequencer.hear()
    sequencer.run(60_000)
    (first, attempt), (second, other) = sequencer.prepares
    assert (first, second, other) == (1, 2, attempt)
    for shard in (1, 2):
        sequencer.grant(shard, attempt)
    sequencer.run(60_000)
    assert sequencer.logged == ["patient"]
    assert not sequencer.coordinator.busy


def test_what_is_over_keeps_no_other_one_out_while_nothing_can_be_logged(
    sequencer: Sequencer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing runs then, as while its disk hangs: others were refused for what nobody waited for."""
    monkeypatch.setattr(coordinator, "MAX_WAITING", 3)
    sequencer.submit("late", deadline_ms=700)
    sequencer.submit("gone", deadline_ms=100_000)
    sequencer.submit("patient", deadline_ms=100_000)
    sequencer.gone.add("gone")
    assert not sequencer.coordinator.submit("another", Method.TXN, sequencer.body)
    sequencer.coordinator.sweep(60_000)
    sequencer.submit("another")
    assert sequencer.coordinator.resign() == ["patient", "another"]


def test_the_locks_of_what_is_past_its_deadline_are_let_go_of(sequencer: Sequencer) -> None:
    sequencer.submit("late", deadline_ms=700)
    sequencer.run(0)
    sequencer.grant(1, sequencer.attempt)
    sequencer.run(699)
    assert not sequencer.released
    sequencer.grant(2, sequencer.attempt)  # too late for it
    sequencer.run(700)
    assert sequencer.released == [(1, sequencer.attempt), (2, sequencer.attempt)]
    assert not sequencer.logged
    assert not sequencer.coordinator.busy


def test_what_nobody_waits_for_any_more_is_not_done(sequencer: Sequencer) -> None:
    """The link to its front has ended: the client knows as much as when it is logged."""
    sequencer.submit("running")
    sequencer.run(0)
    sequencer.submit("queued")
    sequencer.gone |= {"running", "queued"}
    for shard in (1, 2):
        sequencer.grant(shard, sequencer.attempt)
    sequencer.run(1)
    assert sequencer.released == [(1, sequencer.attempt), (2, sequencer.attempt)]
    assert not sequencer.logged
    assert not sequencer.coordinator.busy


def test_an_expiry_that_is_on_its_way_is_not_asked_for_again(sequencer: Sequencer) -> None:
    """The lessor names a lease every few seconds until it is gone: a shard without a leader would fill the
    queue with them."""
    expiring = sequencer.coordinator = sequencer.fresh()  # no leaders
    for _ in range(20_000):
        assert expiring.submit(None, Method.LEASE_REVOKE, b"", [1, 2])
    assert expiring.submit(None, Method.LEASE_REVOKE, b"", [2, 3])
    assert expiring.statistics()["queued"] == 2
    sequencer.hear()
    sequencer.run(0)
    assert expiring.submit(None, Method.LEASE_REVOKE, b"", [1, 2, 3])
    assert (expiring.statistics()["queued"], expiring.statistics()["running"]) == (0, 2)
    for attempt in dict.fromkeys(attempt for _, attempt in sequencer.prepares):
        for shard in (1, 2):
            expiring.granted(attempt, shard, Grant(TERM, [], [[]]))
    sequencer.run(1)
    assert sequencer.logged == [None, None]
    assert expiring.submit(None, Method.LEASE_REVOKE, b"", [1])  # not applied for long: asked once more
    assert expiring.statistics()["queued"] == 1


def test_an_expiry_locks_its_lease_for_seconds_at_most_whoever_only_looks_alive(sequencer: Sequencer) -> None:
    """It has no deadline, and what it is to wait for may report and never grant."""
    assert sequencer.coordinator.submit(None, Method.LEASE_REVOKE, b"", [7])
    longest, since, now_ms = 0, 0, 0
    held: Attempt | None = None
    for now_ms in range(0, 120_000, HEARTBEAT_MS):
        sequencer.hear()
        before = held
        sequencer.run(now_ms)
        held = sequencer.attempt
        if held != before:
            longest, since = max(longest, now_ms - since), now_ms
    assert 40 * HEARTBEAT_MS <= max(longest, now_ms - since) <= 41 * HEARTBEAT_MS


def test_what_waits_for_a_leader_is_not_looked_through_in_each_turn(
    sequencer: Sequencer, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Thousands may wait for a shard that is gone, and each turn is everybody's."""
    looked: list[Wide[str]] = []
    real = coordinator.touches_of
    monkeypatch.setattr(
        coordinator, "touches_of", lambda wide, *args: looked.append(wide) or real(wide, *args))
    sequencer.coordinator = sequencer.fresh()
    sequencer.hear(1)
    sequencer.submit("waits")
    for now_ms in range(0, 1000, HEARTBEAT_MS):
        sequencer.run(now_ms)
    assert len(looked) == 1
    sequencer.hear(2)
    sequencer.run(1000)
    assert sequencer.prepares


def test_of_very_many_that_wait_a_turn_looks_at_the_first(sequencer: Sequencer) -> None:
    """Each turn looked at all: with 3,000 on one key for 6 ms, and lone puts waited as well."""
    looked: list[str] = []
    sequencer.coordinator._gone = looked.append  # type: ignore[assignment,func-returns-value]  # none is gone
    for number in range(3000):
        sequencer.submit(f"hot{number}")
    sequencer.run(0)
    sequencer.body = pb.TxnRequest(success=[
        pb.RequestOp(request_put=pb.PutRequest(key=key_of(shard, sequencer.placement, 1))) for shard in (1, 2)
    ]).SerializeToString()
    sequencer.submit("free")
    looked.clear()
    for number in range(20):
        attempt = sequencer.attempt
        for shard in (1, 2):
            sequencer.grant(shard, attempt)
        sequencer.run(1 + number)
    assert sequencer.logged == [f"hot{number}" for number in range(20)]
    assert len(looked) <= 20 * (coordinator.MOST_LOOKED_AT + 3)
    started = {attempt for _, attempt in sequencer.prepares}
    sequencer.run(HEARTBEAT_MS // 2 + 5)  # within one, what waits for none of them begins
    assert looked[-1] == "free"
    assert len({attempt for _, attempt in sequencer.prepares} - started) == 1
    waiting = [wide.token for wide in sequencer.coordinator._queue]
    assert waiting == [f"hot{number}" for number in range(21, 3000)]


def test_behind_some_hundred_that_wait_others_begin_in_each_turn(sequencer: Sequencer) -> None:
    """One in each heartbeat did, so that 300 that wait for a shard without a leader slowed all others."""
    sequencer.coordinator = sequencer.fresh()
    sequencer.hear(1)
    for number in range(300):
        sequencer.submit(f"waits{number}")
    sequencer.body = pb.TxnRequest(success=[
        pb.RequestOp(request_put=pb.PutRequest(key=key_of(shard, sequencer.placement, 1))) for shard in (0, 1)
    ]).SerializeToString()
    for number in range(10):
        sequencer.submit(f"free{number}")
    for now_ms in range(0, 60, 5):
        sequencer.run(now_ms)
        if sequencer.prepares:
            sequencer.grant(1, sequencer.attempt)
    assert sequencer.logged == [f"free{number}" for number in range(10)]


def test_a_turn_ends_by_what_it_has_read(sequencer: Sequencer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of shard 0, which it reads for transactions over several shards."""
    key, large = key_of(0, sequencer.placement), bytes(1 << 20)
    monkeypatch.setattr(EmptyStore, "get", lambda self, *of: key_value(key, 2, 3, 1, large, 0))
    compare = pb.Compare(key=key, target="VALUE", value=b"other")
    for number in range(10):
        request = pb.TxnRequest(compare=[compare])
        request.success.add(request_range=pb.RangeRequest(key=b"read%d" % number))
        request.success.add(request_put=pb.PutRequest(key=key_of(1, sequencer.placement, number)))
        assert sequencer.coordinator.submit(f"{number}", Method.TXN, request.SerializeToString())
    sequencer.run(0)
    for found in (4, 8, 10):
        for shard, attempt in sequencer.prepares:
            sequencer.grant(shard, attempt)
        sequencer.run(1)
        assert len(sequencer.logged) == found


def test_an_expiry_waits_no_more_for_a_shard_whose_keys_have_moved_away(sequencer: Sequencer) -> None:
    """It has no deadline, and that shard may be dropped, or never have a leader again."""
    sequencer.coordinator = sequencer.fresh()
    sequencer.hear(1)
    assert sequencer.coordinator.submit(None, Method.LEASE_REVOKE, b"", [7])
    sequencer.run(0)
    assert not sequencer.prepares
    table = sequencer.placement.table
    sequencer.placement.replace(replace(
        table, spans=(Piece(END, END, 1, 8),), past=(Piece(b"a", b"b", 2, 0, 7),),
        generation=table.generation + 1))
    sequencer.run(1)
    assert [shard for shard, _ in sequencer.prepares] == [1]


def done(sequencer: Sequencer, token: str, index: int) -> Attempt:
    """One is done from its beginning to its record."""
    sequencer.submit(token)
    sequencer.run(0)
    attempt = sequencer.attempt
    for shard in (1, 2):
        sequencer.grant(shard, attempt)
    sequencer.run(0)
    sequencer.coordinator.logged(index)
    return attempt


def test_i11_a_fate_that_is_not_kept_is_a_later_one(
    sequencer: Sequencer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader far behind asks about its lock: it must not let go before it has applied the multi."""
    monkeypatch.setattr(fates, "_KEPT", 2)
    first, second, third, last = (done(sequencer, token, index) for token, index in (
        ("a", 11), ("b", 12), ("c", 13), ("d", 14)))
    found = [sequencer.coordinator.fate(attempt) for attempt in (first, second, third, last)]
    assert found == [12, 12, 13, 14]
    dead = Attempt(last.term, last.number + 1)
    assert sequencer.coordinator.fate(dead) == 0
    sequencer.released.clear()
    for attempt in (first, last, dead):  # grants that are long over
        sequencer.grant(1, attempt)
    sequencer.run(0)
    assert sequencer.released == [(1, dead)]


def test_i11_a_prepare_that_meets_a_lock_whose_fate_is_not_kept_waits_for_a_later_one(
        sequencer: Sequencer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fates, "_KEPT", 1)
    first, _ = done(sequencer, "a", 11), done(sequencer, "b", 12)
    sequencer.submit("c")
    sequencer.run(0)
    sequencer.released.clear()
    sequencer.coordinator.refused(sequencer.attempt, 1, first, 0)
    sequencer.coordinator.run(0, lambda *args: None)
    assert not sequencer.coordinator.take_messages()
    sequencer.coordinator.run(5 * HEARTBEAT_MS, lambda *args: None)
    sent = {message.shard: message for message in sequencer.coordinator.take_messages()}
    assert [message.method for message in sent.values()] == [Method.PREPARE] * 2
    assert Prepare.decode(sent[1].body).order_index == 11


def test_a_record_is_closed_when_it_is_large(sequencer: Sequencer) -> None:
    """D9: everything else that is in order waits for it."""
    for number in range(9):
        body = pb.TxnRequest(
            success=[
                pb.RequestOp(
                    request_put=pb.PutRequest(
                        key=key_of(shard, sequencer.placement, number), value=b"v" * (300 << 10)
                    )
                )
                for shard in range(3)
            ]
        )
        assert sequencer.coordinator.submit(str(number), Method.TXN, body.SerializeToString())
    sequencer.run(0)
    for shard, attempt in sequencer.prepares:
        sequencer.grant(shard, attempt)
    records = []
    while sequencer.coordinator.busy:
        sequencer.run(10 * HEARTBEAT_MS)
        records.append(sum(map(len, sequencer.items)))
        sequencer.items.clear()
    assert sequencer.logged == [str(number) for number in range(9)]
    assert [size >> 20 for size in records] == [4, 3]
    assert not sequencer.released


def test_a_late_lock_of_an_attempt_that_is_over_is_not_asked_for_again_and_again(
    sequencer: Sequencer,
) -> None:
    """A new leader locked it for a prepare that came late. Each refusal was answered by a prepare at once,
    hence by a refusal; every prepare that was sent again began another such round."""
    first = done(sequencer, "a", 11)
    sequencer.submit("c")
    sequencer.run(0)
    sequencer.coordinator.take_messages()
    sequencer.coordinator.refused(sequencer.attempt, 1, first, 0)
    (asked,) = sequencer.coordinator.take_messages()
    assert (asked.method, Prepare.decode(asked.body).order_index) == (Method.PREPARE, 11)
    for _ in range(3):
        sequencer.coordinator.refused(sequencer.attempt, 1, first, 0)
    assert not sequencer.coordinator.take_messages()
    sequencer.coordinator.run(5 * HEARTBEAT_MS, lambda *args: None)
    assert {message.shard for message in sequencer.coordinator.take_messages()} == {1, 2}  # when it is due


def test_h5_what_was_sent_before_a_leaders_term_is_sent_again_at_once(sequencer: Sequencer) -> None:
    """The leader names the attempt itself."""
    sequencer.submit("a")
    sequencer.run(0)
    sequencer.coordinator.take_messages()
    sequencer.released.clear()
    sequencer.coordinator.refused(sequencer.attempt, 1, sequencer.attempt, 0)
    (again,) = sequencer.coordinator.take_messages()
    assert (again.shard, again.method) == (1, Method.PREPARE)
    assert Prepare.decode(again.body).attempt == sequencer.attempt
    for shard, attempt in sequencer.prepares:
        sequencer.grant(shard, attempt)
    sequencer.run(0)
    assert sequencer.logged == ["a"]
    assert not sequencer.released


def test_ranges_that_wait_for_a_leader_cost_a_turn_n_steps() -> None:
    """Each was compared with all before it in every turn: 2,000 took 12 s, and no shard's write went on."""
    def turn(count: int) -> Callable[[], object]:
        sequencer = Sequencer()
        sequencer.coordinator = sequencer.fresh()
        sequencer.hear(1)
        for at in range(count):
            delete = pb.DeleteRangeRequest(key=b"job-%05d-" % at, range_end=b"job-%05d." % at)
            assert sequencer.coordinator.submit(f"{at}", Method.DELETE_RANGE, delete.SerializeToString())
        sequencer.run(0)
        assert not sequencer.prepares
        return lambda: sequencer.run(1)

    assert grows(turn, 256) <= GROWTH

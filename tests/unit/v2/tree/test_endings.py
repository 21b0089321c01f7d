"""When the nodes of the v2 tree whose time is over go (node.serving.v2_ends)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.effects import records
from cluster.features.rows import RowsOf, encode
from cluster.features.v2.changes import evaluate
from cluster.features.v2.requests import Answer, Op, Write
from cluster.features.v2.tree import FIRST_INDEX, KEYS, Tree
from cluster.wire.messages import HEAD, Method, decode_answers
from node.serving import v2_ends
from node.serving.v2 import V2Tree
from node.storage import StateStore
from tests.unit.node.replica.test_writes import Replica
from tests.unit.v2.tree.random_writes import NOW_NS, WRAPS_S, S, moment

KEYS_IN_ALL = 3000


def test_an_entry_that_cannot_leave_does_not_grow_by_what_ends_meanwhile() -> None:
    rows = []
    tree = Tree(keep_events=False)
    for number in range(KEYS_IN_ALL):
        write = Write(Op.SET, KEYS + b"/k%d" % number, b"x", expires_ns=NOW_NS + S, now_ns=NOW_NS)
        rows.append(evaluate(tree, write).rows)
        tree.take(rows[-1])
    items: list[bytes] = []
    leader: Any = SimpleNamespace(v2=tree, counted=tree, append=items.append, dirty=False)
    node: Any = SimpleNamespace(
        store=SimpleNamespace(feature_rows=lambda _: [row for some in rows for row in some]),
        writes=SimpleNamespace(leader=leader, has_room=False, in_turn=lambda work: work(leader)),
        machine=SimpleNamespace(wall_time=lambda: NOW_NS / 1e9 + 2),
        loop=SimpleNamespace(time=lambda: 0.0),
        wake=lambda: None,
    )
    ending = V2Tree(node)
    for _ in range(5):
        ending.look()
        leader.dirty = bool(items)
    assert len(items) == 1
    node.writes.has_room = True
    while tree.next_expiry_ns:
        ending.look()
    assert len(items) == 3


class Busy:
    """A leader whose requests gather while an entry is under way, and its heartbeats."""

    def __init__(self, store: StateStore) -> None:
        self.now_s = 0.0
        self.replica = Replica(store, full_requests=256)
        self.replica.lead(1)
        node: Any = SimpleNamespace(
            store=store,
            writes=self.replica.writes,
            machine=SimpleNamespace(wall_time=lambda: NOW_NS / 1e9 + self.now_s),
            loop=SimpleNamespace(time=lambda: 0.0),
            wake=self.replica.writes.run,
            applied_index=0,
        )
        self.v2 = V2Tree(node)
        self.applied = self.replica.raft.last

    def set(self, key: bytes, seconds: int, *, refresh: bool = False) -> None:
        until_ns = NOW_NS + seconds * S
        self.write(Write(Op.SET, KEYS + key, b"", expires_ns=until_ns, now_ns=NOW_NS, refresh=refresh))

    def write(self, write: Write, rid: int = 1) -> None:
        self.replica.writes.submit(self.replica.link, rid, Method.V2_WRITE, write.encode())
        self.replica.writes.run()

    def answer(self, rid: int) -> Answer:
        self.replica.link.flush()
        found = [body for data in self.replica.sent for of, _, body in decode_answers(data)[1] if of == rid]
        return Answer.decode(found[0], HEAD.size)

    def apply(self) -> None:
        """The entry that is under way, behind which the next one leaves."""
        self.applied += 1
        term, data = self.replica.raft.entries[self.applied]
        self.v2.applied(self.replica.store.apply([(self.applied, term, data)]).rows)
        self.replica.writes.applied(self.applied, term)
        self.replica.writes.run()

    def apply_all(self) -> None:
        while self.applied < self.replica.raft.last:
            self.apply()

    def heartbeat(self, at_s: float) -> None:
        self.now_s = at_s
        self.v2.look()

    @property
    def keys(self) -> list[bytes]:
        return sorted(self.v2.tree.find(KEYS).children or {})


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Busy]:
    store = StateStore.open(f"{tmp_path}/state")
    yield Busy(store)
    store.close()


def test_what_is_renewed_in_time_stays_though_an_entry_is_under_way_at_its_end(busy: Busy) -> None:
    """A large one, or a slow disk. A service would be gone that had said in time that it is there."""
    busy.set(b"/service", 1)
    busy.apply()
    busy.replica.put(1)
    busy.set(b"/service", 30, refresh=True)
    for at_s in (2.0, 2.1, 3.0):
        busy.heartbeat(at_s)
    busy.apply_all()
    busy.heartbeat(3.1)
    busy.apply_all()
    assert len(busy.keys) == 1
    busy.heartbeat(31.0)
    busy.apply_all()
    assert busy.keys == []


def test_nodes_end_though_requests_always_wait(busy: Busy) -> None:
    busy.set(b"/service", 1)
    busy.apply()
    busy.replica.put(1)
    for number in range(2, 6):
        busy.replica.put(number)
        busy.heartbeat(1.0 + number)
        busy.apply()
        assert busy.replica.writes.uncommitted
    busy.apply_all()
    assert busy.keys == []


WRAPPED_NS = moment(NOW_NS, WRAPS_S)


def test_a_ttl_that_wraps_holds_up_the_end_of_no_other_key(busy: Busy) -> None:
    """Its moment is before 1970. Nothing ended any more, in the whole tree, until that key was deleted."""
    for key in (b"/service", b"/updated", b"/swapped"):
        busy.set(key, 1 if key == b"/service" else 99)
        busy.apply_all()
    now_ns = NOW_NS + 2 * S
    busy.write(Write(Op.UPDATE, KEYS + b"/updated", b"", expires_ns=WRAPPED_NS, now_ns=now_ns), 7)
    swap = Write(Op.COMPARE_AND_SWAP, KEYS + b"/swapped", b"x", prev_index=6, expires_ns=WRAPPED_NS)
    busy.write(swap, 8)
    busy.apply_all()
    assert not busy.answer(7).code
    assert not busy.answer(8).code
    for at_s in (2.0, 2.1):
        busy.heartbeat(at_s)
        busy.apply_all()
    assert busy.keys == []


def test_ttls_that_wrap_again_and_again_hold_up_no_other_key(busy: Busy) -> None:
    """What is long past at once is not what a turn has left."""
    busy.set(b"/before", 1)
    busy.set(b"/service", 5)
    busy.apply_all()
    for tenth in range(20, 80):
        busy.set(b"/k", 99)
        busy.write(Write(Op.UPDATE, KEYS + b"/k", b"", expires_ns=WRAPPED_NS, now_ns=NOW_NS))
        busy.apply_all()
        busy.heartbeat(tenth / 10)
        busy.apply_all()
        assert b"k" not in busy.keys
    assert busy.keys == []


@pytest.mark.parametrize("waits", [False, True])
def test_a_clock_that_is_put_back_takes_no_key_that_is_renewed_in_time(busy: Busy, waits: bool) -> None:
    """What ended before counted as the moment up to which all had their turn, until something was due."""
    busy.set(b"/before", 99)
    busy.apply_all()
    if waits:
        busy.replica.put(1)
        busy.replica.put(2)
    busy.heartbeat(100.0)
    if not waits:
        busy.apply_all()
        assert busy.keys == []
    busy.heartbeat(50.0)
    busy.apply_all()
    busy.set(b"/service", 60)
    busy.apply_all()
    busy.heartbeat(59.9)
    busy.replica.put(3)
    busy.replica.put(4)
    busy.set(b"/service", 70, refresh=True)
    busy.heartbeat(60.1)
    busy.apply_all()
    busy.heartbeat(60.2)
    busy.apply_all()
    assert b"service" in busy.keys


def test_what_ends_while_others_wait_for_their_end_may_still_be_renewed(busy: Busy) -> None:
    busy.set(b"/first", 1)
    busy.set(b"/second", 3)
    busy.apply_all()
    busy.replica.put(1)
    busy.replica.put(2)
    busy.heartbeat(2.0)
    busy.apply()
    busy.set(b"/second", 30, refresh=True)
    busy.heartbeat(4.0)
    busy.apply_all()
    assert len(busy.keys) == 1


@pytest.mark.parametrize("late", [
    Write(Op.CREATE, KEYS + b"/lock", b"mine", now_ns=NOW_NS + 3 * S),
    Write(Op.SET, KEYS + b"/lock", b"", now_ns=NOW_NS + 3 * S, expires_ns=NOW_NS + 30 * S, refresh=True),
], ids=["create", "refresh"])  # fmt: skip
def test_what_comes_behind_an_end_finds_that_it_has_come(busy: Busy, late: Write) -> None:
    """Nobody would have the lock: its create was refused, and then the key ended."""
    busy.set(b"/lock", 1)
    busy.apply_all()
    busy.replica.put(1)
    busy.replica.put(2)
    busy.heartbeat(2.0)
    busy.write(late, 9)
    busy.heartbeat(3.1)
    busy.apply_all()
    assert busy.answer(9).code == (0 if late.op == Op.CREATE else 100)
    assert busy.keys == ([b"lock"] if late.op == Op.CREATE else [])


def test_many_nodes_end_some_each_heartbeat_though_requests_always_wait(
    busy: Busy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stayed twice as long as on a leader that had nothing else to do."""
    monkeypatch.setattr(v2_ends, "_AT_ONCE", 8)
    for number in range(64):
        busy.set(b"/%d" % number, 1)
        busy.apply_all()
    busy.replica.put(1)
    heartbeats = 0
    while busy.keys:
        busy.replica.put(2 + heartbeats)
        busy.heartbeat(2.0 + heartbeats / 10)
        busy.apply()
        heartbeats += 1
    assert heartbeats <= 64 // 8 + 2


def test_another_term_finds_them_due_anew(busy: Busy) -> None:
    """The turn of the term before went with its queue."""
    busy.set(b"/service", 1)
    busy.apply_all()
    busy.replica.put(1)
    busy.heartbeat(2.0)
    busy.replica.deposed(2)
    busy.heartbeat(2.1)
    assert busy.replica.writes.queued == 0
    busy.apply_all()  # what was logged, by others
    busy.replica.raft.term, busy.replica.raft.is_leader = 3, True
    busy.replica.writes.lead()._v2_tree = busy.v2.tree.copy()
    busy.heartbeat(2.2)
    busy.replica.writes.run()
    busy.apply_all()
    assert busy.keys == []


def test_what_is_refused_counts_at_once_and_soon_at_every_replica(busy: Busy) -> None:
    """It was counted with the next change, which may never come."""

    def failed() -> tuple[int, int]:
        answer = busy.v2._answered(None)
        return json.loads(answer.body)["deleteFail"], busy.v2.tree.counted()["deleteFail"]

    busy.write(Write(Op.DELETE, KEYS + b"/none"))
    assert failed() == (1, 0)
    busy.heartbeat(0.1)
    busy.replica.writes.run()
    busy.apply_all()
    assert failed() == (1, 1)
    assert busy.v2.tree.index == FIRST_INDEX
    logged = busy.replica.raft.last
    busy.heartbeat(0.2)
    busy.replica.writes.run()
    assert busy.replica.raft.last == logged


def test_refusals_keep_no_large_directory_from_going_where_the_log_is_slow(
    busy: Busy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They made the next entry of the leader, which is not to grow by what ends: that waited for ever."""
    monkeypatch.setattr(v2_ends, "_AT_ONCE", 8)
    woken: list[None] = []
    busy.v2._node.wake = lambda: woken.append(None)  # type: ignore[method-assign]
    for number in range(600):
        busy.write(Write(Op.SET, KEYS + b"/d/%d" % number, b"x", now_ns=NOW_NS))
        busy.apply_all()
    busy.write(Write(Op.DELETE, KEYS + b"/d", recursive=True, directory=True, now_ns=NOW_NS))
    busy.apply_all()
    leader = busy.replica.writes.leader
    assert leader is not None
    while busy.replica.writes.has_room:
        leader.append(records.rows(encode(RowsOf.V2, [])))
        busy.replica.writes.run()
    heartbeats = 0
    while busy.v2.tree.going:
        busy.write(Write(Op.DELETE, KEYS + b"/none"))
        busy.heartbeat(2.0 + heartbeats / 10)
        while woken:
            woken.clear()
            busy.replica.writes.run()
        busy.apply()
        heartbeats += 1
        assert heartbeats < 60
    assert busy.v2.tree.counted()["deleteFail"] > heartbeats // 2, "what goes takes them along"
    busy.apply_all()
    busy.heartbeat(20.0)
    busy.replica.writes.run()
    busy.apply_all()
    assert busy.v2.tree.counted()["deleteFail"] == heartbeats


def test_what_the_leader_evaluated_counts_as_done_once_it_is_applied(busy: Busy) -> None:
    busy.replica.put(1)
    busy.set(b"/a", 9)
    assert json.loads(busy.v2._answered(None).body)["setsSuccess"] == 0
    busy.apply_all()
    assert json.loads(busy.v2._answered(None).body)["setsSuccess"] == 1

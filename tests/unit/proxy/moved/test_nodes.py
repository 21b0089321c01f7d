"""G7, G9: a read is answered only by a table that has the same owners of it as its front's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from cluster.features.auth.reads import Show
from cluster.pb import rpc_pb2
from cluster.placement import Table
from cluster.placement.base import Base
from cluster.placement.changes import Moved, take_move, take_moved
from cluster.placement.table import Move
from cluster.wire.messages import READ, Method, Status
from node.links.fronts import FrontLink
from node.replica.consequences import Consequences
from node.serving.reads import Reads
from node.storage.state.changes.run import Applied

FIRST = Table.initial(Base(2, 1))
MOVED = take_moved(take_move(FIRST, Move(1, b"k", b"k\0", FIRST.owners(b"k", b""), 1 - FIRST.owner(b"k")), 5),
                   Moved(1, True, 5, 0), 5)


class Link(FrontLink):
    def __init__(self) -> None:
        super().__init__(b"f", lambda parts: True, b"", 1)
        self.answers: list[tuple[int, int, bytes]] = []

    def answer(self, rid: int, status: int, body: bytes) -> None:
        self.answers.append((rid, status, body))


class Replica:
    def __init__(self, table: Table | None) -> None:
        self.applied = 3
        self.now = 0.0
        loop: Any = SimpleNamespace(time=lambda: self.now)
        self.reads = Reads(loop, None, lambda link: None, lambda: self.applied)  # type: ignore[arg-type]
        if table is not None:
            self.reads.placed(table)
        self.link = Link()
        self.served: list[int] = []

    def read(
        self, key: bytes, end: bytes = b"", index: int = 0, method: int = Method.RANGE, rid: int = 1
    ) -> None:
        body = READ.pack(index, 0) + rpc_pb2.RangeRequest(key=key, range_end=end).SerializeToString()
        self.reads.submit(
            self.link, rid, 1000, body, lambda link, rid, revision, request: self.served.append(rid), method)


@pytest.mark.parametrize(("key", "end", "method"), [
    (b"k", b"", Method.RANGE), (b"j", b"z", Method.RANGE_ROWS), (b"a", b"\0", Method.RANGE_STREAM),
    (b"", b"", Method.LEASE_KEYS)])
def test_a_front_that_has_not_heard_of_a_change_is_told_and_gets_no_answer(
    key: bytes, end: bytes, method: int
) -> None:
    replica = Replica(MOVED)
    replica.read(key, end, method=method)
    assert replica.link.answers == [(1, Status.MOVED, MOVED.encode())]
    replica.read(b"x", rid=2)
    assert replica.served == [2], "what the change does not touch is answered"
    replica.link.placed(MOVED.encode())
    replica.read(key, end, method=method, rid=3)
    assert replica.served == [2, 3]


def test_many_reads_by_an_older_table_have_the_newer_one_encoded_once(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded, encode = list[Table](), Table.encode

    def counted(table: Table) -> bytes:
        encoded.append(table)
        return encode(table)

    monkeypatch.setattr(Table, "encode", counted)
    owner = MOVED.owner(b"x")
    later = take_move(MOVED, Move(2, b"x", b"x\0", (owner,), 1 - owner), 7)
    replica = Replica(MOVED)
    for rid in range(3):
        replica.read(b"k", rid=rid)
    replica.reads.placed(later)
    replica.read(b"k", rid=3)
    assert encoded[-2:] == [MOVED, later]
    assert encoded.count(MOVED) == 1
    assert [body for _, _, body in replica.link.answers] == [encode(MOVED)] * 3 + [encode(later)]


@pytest.mark.parametrize(("shown", "moved"), [
    (Show.LOGIN, False), (Show.USER_LIST, False), (Show.ROLE_GET, False), (Show.STATUS, False),
    (Show.MAY_WATCH, True), (Show.MAY_REVOKE, True), (Show.MAY_LIST, True)])
def test_questions_about_users_that_name_no_key_are_answered_whatever_has_moved(
    shown: Show, moved: bool
) -> None:
    replica = Replica(MOVED)
    replica.reads.submit(replica.link, 1, 1000, READ.pack(0, 0) + bytes((shown,)),
                         lambda link, rid, revision, request: replica.served.append(rid), Method.AUTH_SHOW)
    assert (replica.served, [answer[1] for answer in replica.link.answers]) == (
        ([], [Status.MOVED]) if moved else ([1], []))


@pytest.mark.parametrize("table", [FIRST, None], ids=["the first", "none yet"])
def test_a_read_by_a_newer_table_waits_until_that_is_applied(table: Table | None) -> None:
    replica = Replica(table)
    replica.link.placed(MOVED.encode())
    replica.read(b"k")
    replica.read(b"x", rid=2)
    assert (replica.served, replica.link.answers) == ([2], [])
    replica.reads.placed(MOVED)
    assert replica.served == [2, 1]


@pytest.mark.parametrize("behind", [False, True], ids=["an entry is waited for", "a table is"])
def test_a_read_that_is_refused_is_answered_once_and_kept_no_longer(behind: bool) -> None:
    """A limit that holds back nothing is none."""
    replica = Replica(None)
    replica.reads.waiting.limit = 2
    if behind:
        replica.link.placed(MOVED.encode())
    for rid in range(1, 5):
        replica.read(b"k", rid=rid, index=0 if behind else 9)
    assert [rid for rid, _, _ in replica.link.answers] == [3, 4]
    assert len(replica.reads._late) == 2
    replica.now = 2.0
    replica.reads.sweep()
    assert [rid for rid, _, _ in replica.link.answers] == [3, 4, 1, 2]


def test_a_read_of_a_front_that_is_told_of_a_table_is_answered_once() -> None:
    replica = Replica(MOVED)
    replica.read(b"k")
    replica.now = 2.0
    replica.reads.sweep()
    assert [status for _, status, _ in replica.link.answers] == [Status.MOVED]


def other_history() -> Table:
    """What a forced start made of MOVED's generation, once it had dropped that change."""
    owner = FIRST.owner(b"x")
    move = Move(1, b"x", b"x\0", (owner,), 1 - owner)
    return take_moved(take_move(FIRST, move, 4), Moved(1, True, 4, 0), 4)


@pytest.mark.parametrize("index", [0, 5])
def test_g7_a_table_of_the_same_number_that_a_forced_start_dropped_is_another_one(index: int) -> None:
    """Its owner of a key answered that there is none."""
    mine = other_history()
    assert mine.generation == MOVED.generation
    replica = Replica(mine)
    replica.link.placed(MOVED.encode())
    replica.read(b"k", index=index)
    replica.read(b"y", index=index, rid=2)
    replica.applied = 5
    replica.reads.waiting.release(5, 0.0)
    assert replica.served == [2], "both tables have the same owner of it"
    assert not replica.link.answers, "a front that does not take this table would ask again and again"
    replica.link.placed(mine.encode())
    replica.reads.told(replica.link)
    assert replica.link.answers == [(1, Status.MOVED, mine.encode())]
    replica.read(b"k", rid=3)
    assert replica.served == [2, 3]


def test_a_front_that_goes_by_this_table_leaves_reads_of_others_alone(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    """All reads of all fronts that were ahead were looked at again, in one turn: up to 350 ms."""
    replica = Replica(MOVED)
    owner = MOVED.owner(b"x")
    move = Move(2, b"x", b"x\0", (owner,), 1 - owner)
    later = take_moved(take_move(MOVED, move, 7), Moved(2, True, 7, 0), 7)
    replica.link.placed(later.encode())
    for rid in range(3):
        replica.read(b"x", rid=rid)
    looked, agrees = list[bytes](), Table.agrees

    def counted(table: Table, other: Table, key: bytes, range_end: bytes) -> bool:
        looked.append(key)
        return agrees(table, other, key, range_end)

    monkeypatch.setattr(Table, "agrees", counted)
    other = Link()
    other.placed(MOVED.encode())
    replica.reads.told(other)
    assert not looked
    replica.reads.placed(later)
    assert replica.served == [0, 1, 2]


def test_a_read_that_waits_for_a_table_is_given_up_in_time() -> None:
    replica = Replica(FIRST)
    replica.link.placed(MOVED.encode())
    replica.read(b"k")
    replica.now = 1.5
    replica.reads.sweep()
    replica.reads.placed(MOVED)
    assert not replica.served


def test_a_table_that_is_applied_while_a_read_waits_for_its_index_counts() -> None:
    replica = Replica(FIRST)
    replica.read(b"k", index=5)
    replica.applied = 5
    replica.reads.placed(MOVED)
    replica.link.placed(MOVED.encode())  # it was sent before
    replica.reads.waiting.release(5, 0.0)
    assert not replica.served
    assert [status for _, status, _ in replica.link.answers] == [Status.MOVED]


def test_a_malformed_read_is_refused_in_its_turn() -> None:
    replica = Replica(MOVED)
    replica.reads.submit(
        replica.link, 1, 1000, READ.pack(0, 0) + b"\xff\xff",
        lambda link, rid, revision, request: replica.served.append(rid), Method.RANGE)
    assert replica.served == [1]


def test_g9_fronts_hear_of_a_table_before_what_is_newer() -> None:
    node: Any = MagicMock()
    node.reads.waiting.__len__.return_value = 0
    node.store.counts.grown = False
    applied = Applied(7, [(7, 0, b"k", b"", 0)], placement=Table.initial(Base(2)))
    Consequences(node).applied([], applied)
    said = [name for name, *_ in node.mock_calls]
    order = [said.index(name) for name in (
        "reads.placed", "upkeep.placed.applied", "watches.emit", "fronts.watermark")]
    assert order == sorted(order)


def test_i20_reads_that_waited_for_a_table_are_judged_by_the_users_of_the_state_that_brings_it() -> None:
    """A user whose role was revoked in the jump read what was written behind it."""
    replica = Replica(FIRST)
    replica.link.placed(MOVED.encode())
    guard, judged = SimpleNamespace(role="r"), list[str]()
    replica.reads.submit(
        replica.link, 1, 1000, READ.pack(0, 0) + rpc_pb2.RangeRequest(key=b"k").SerializeToString(),
        lambda link, rid, revision, request: judged.append(guard.role), Method.RANGE)
    node: Any = MagicMock(reads=replica.reads, applied_index=9, order_index=9)
    node.raft.announced_index = 0
    node.store.placement.return_value = MOVED
    node.serve.replaced.side_effect = lambda: setattr(guard, "role", "none")
    Consequences(node).replaced()
    assert judged == ["none"]

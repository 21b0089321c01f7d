"""When a front begins a backup anew, and what it does with the one before."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from cluster import errors
from cluster.errors import EtcdError
from cluster.pb import rpc_pb2
from cluster.placement.base import Base
from cluster.placement.changes import take_shard
from cluster.placement.table import Piece, State, Table
from cluster.wire.messages import HEAD, HELD, READ, Method, Status
from proxy.services.upkeep.backup import _MOST_ATTEMPTS, Snapshot, _Sending
from tests.unit.proxy.fakes import FakeCall, FakeNode, Net
from tests.unit.proxy.served import Served


class Backup:
    """A client asks for a backup of a cluster of one shard."""

    def __init__(self) -> None:
        self.served = Served()
        self.call: FakeCall = self.served.call("Snapshot", rpc_pb2.SnapshotRequest())
        (self.hold,) = self.asked()

    def asked(self) -> list[tuple[Method, int, bytes]]:
        """What the node has been asked for since: method, request, body."""
        self.served.net.run()
        self.served.all_applied()
        return [(Method(one.method), one.rid, one.body) for one in self.served.node.take()]

    def answer(self, rid: int, status: Status, body: bytes) -> None:
        self.served.node.answer(rid, status, body)

    def held(self, rid: int, name: str) -> None:
        member = self.served.net.context.common.member_id
        self.answer(rid, Status.PARTIAL, HELD.pack(5, 3, 0, member) + name.encode())


@pytest.fixture
def backup() -> Backup:
    return Backup()


def building(backup: Backup, name: str) -> int:
    """The checkpoint is held; the request to build of it."""
    _, rid, _ = backup.hold
    backup.held(rid, name)
    ((_, built, body),) = backup.asked()
    assert json.loads(body[READ.size :]) == [name]
    return built


def anew(backup: Backup, old: int) -> list[tuple[Method, int, bytes]]:
    """The old checkpoint is given back and another one asked for; what else was asked."""
    asked = backup.asked()
    (backup.hold,) = [one for one in asked if one[0] == Method.SNAPSHOT]
    _, rid, body = backup.hold
    assert not body[READ.size :]
    assert rid > old
    return [one for one in asked if one is not backup.hold]


def unfit() -> bytes:
    return EtcdError(errors.BACKUP_UNFIT, "a backup could not be made: moved").encode()


def test_checkpoints_that_make_no_backup_are_asked_for_anew(backup: Backup) -> None:
    (_, first, _) = backup.hold
    old = building(backup, "checkpoint-1")
    backup.answer(old, Status.ERROR, unfit())
    assert [(method, rid) for method, rid, _ in anew(backup, old)] == [(Method.CANCEL, first)]
    new = building(backup, "checkpoint-2")
    file = b"x" * 512
    backup.answer(new, Status.PARTIAL, (0).to_bytes(8, "little") + file)
    backup.answer(new, Status.OK, HEAD.pack(3, 1))
    backup.asked()
    replies = [rpc_pb2.SnapshotResponse.FromString(reply).blob for reply in backup.call.replies]
    assert b"".join(replies)[:-32] == file
    assert backup.call.status == (0, "")


def test_after_several_attempts_the_client_is_told_why(backup: Backup) -> None:
    for attempt in range(1, _MOST_ATTEMPTS + 1):
        old = building(backup, f"checkpoint-{attempt}")
        backup.answer(old, Status.ERROR, unfit())
        if attempt < _MOST_ATTEMPTS:
            anew(backup, old)
    backup.asked()
    assert backup.call.status == (int(errors.Code.UNAVAILABLE), "a backup could not be made: moved")


def test_what_an_attempt_sends_that_was_given_up_is_not_mixed_with_the_next_ones(backup: Backup) -> None:
    old = building(backup, "checkpoint-1")
    sending: _Sending = backup.call.context
    handler = backup.served.methods.handlers["Snapshot"]
    stale = sending.built
    handler._again(backup.call, sending, "for a test")
    assert (Method.CANCEL, old) in [(method, rid) for method, rid, _ in anew(backup, old)]
    new = building(backup, "checkpoint-2")
    handler._answer(stale, Status.PARTIAL, (0).to_bytes(8, "little") + b"old")
    handler._answer(stale, Status.OK, HEAD.pack(3, 1))
    backup.answer(new, Status.PARTIAL, (0).to_bytes(8, "little") + b"new")
    backup.asked()
    assert [rpc_pb2.SnapshotResponse.FromString(one).blob for one in backup.call.replies] == [b"new"]


def test_a_shard_that_comes_or_goes_before_the_file_is_made_begins_it_anew(backup: Backup) -> None:
    net = backup.served.net
    net.every.update({(1, m): FakeNode(m, 1, leader=1) for m in (1, 2, 3)})
    table = Table.initial(Base(1))
    for state in (State.FORMING, State.SERVING):
        table = take_shard(table, 1, state, 1, (1, 2, 3))
    moved = (Piece(b"a", b"b", 1, 4),)
    grown = replace(table, spans=moved, past=(Piece(b"a", b"b", 0, 0, 3),), generation=table.generation + 1)
    _, first, _ = backup.hold
    net.context.follow(grown)
    net.pass_time(0.1)
    backup.held(first, "checkpoint-1")  # of an attempt that is over
    assert (Method.CANCEL, first) in [(method, rid) for method, rid, _ in anew(backup, first)]

    _, second, _ = backup.hold
    backup.held(second, "checkpoint-2")
    net.pass_time(0.5)
    ((_, _, asked),) = [(one.method, one.rid, one.body) for one in net.every[1, 1].take()
                        if one.method == Method.SNAPSHOT]
    assert len(asked) == READ.size
    assert backup.asked() == [], "the other shard's checkpoint is lacking"
    gone = replace(table, generation=grown.generation + 1)  # its keys have moved back, and it is dropped
    for state in (State.RETIRING, State.DROPPED):
        gone = take_shard(gone, 1, state, 0, ())
    net.context.follow(gone)
    net.pass_time(0.1)
    assert backup.call.status is None
    assert (Method.CANCEL, second) in [(method, rid) for method, rid, _ in anew(backup, second)]
    building(backup, "checkpoint-3")


def test_a_link_to_the_host_that_makes_it_is_kept_until_it_is_asked() -> None:
    """Where host 1 lacks its node of shard 0, and host 3 leads shard 1. It was ended as unused, and the
    backup failed after ten seconds."""
    net = Net(shards=2)
    for (shard, _), node in net.every.items():
        node.leader = 3 if shard else 2
    net.pass_time(12.3)  # unneeded links have ended
    net.cut(1, 0)
    net.pass_time(0.5)
    handler, call = Snapshot(net.context, "etcdserverpb.Maintenance"), FakeCall()
    handler.opened(call)
    handler.message(call, b"")
    held: set[tuple[int, int]] = set()
    for _ in range(40):
        net.pass_time(0.05)
        for (shard, member), node in net.every.items():
            for one in node.take() if node.alive else ():
                if one.method == Method.READ_INDEX:
                    node.index(one, 1)
                elif one.method == Method.FACTS:
                    node.ok(one)
                elif one.method == Method.SNAPSHOT and len(one.body) <= READ.size:
                    held.add((shard, member))
                    node.answer(one.rid, Status.PARTIAL, HELD.pack(5, 1, 0, member) + b"c")
        net.run()
    assert held == {(0, 2), (1, 2)}
    assert call.context.built is not None
    assert not any(route.wanted for route in net.router.routes.values())


def test_a_backup_that_ends_wants_no_link() -> None:
    net = Net(shards=2)
    net.pass_time(0.3)
    handler, call = Snapshot(net.context, "etcdserverpb.Maintenance"), FakeCall()
    handler.opened(call)
    handler.message(call, b"")
    sending = call.context
    sending.member = 9
    handler._ask_others(call, sending)
    assert net.router.routes[1].wanted == {9}
    handler.cancelled(call)
    assert not net.router.routes[1].wanted


def test_a_failure_after_the_first_byte_ends_the_call(backup: Backup) -> None:
    built = building(backup, "checkpoint-1")
    backup.answer(built, Status.PARTIAL, (9).to_bytes(8, "little") + b"first")
    backup.asked()
    backup.answer(built, Status.ERROR, unfit())
    backup.asked()
    assert backup.call.status == (int(errors.Code.UNAVAILABLE), "a backup could not be made: moved")

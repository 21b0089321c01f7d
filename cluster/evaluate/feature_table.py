"""The replicated features: what each evaluates, what it logs, and when that is acknowledged. Puts, deletes
and transactions have fast paths of their own (``cluster.evaluate``). docs/design/README.md says how to add
one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cluster.effects import records
from cluster.effects.records import Item
from cluster.errors import LEASE_EXIST, PERMISSION_DENIED, SHARD_HOSTS_CHANGE, EtcdError
from cluster.evaluate import requests as evaluate
from cluster.evaluate.validate import parse
from cluster.evaluate.view import Outcome
from cluster.faults import answered
from cluster.features import births, growth, moves
from cluster.features.auth import changes
from cluster.features.rows import RowsOf, encode
from cluster.features.v2 import changes as v2
from cluster.features.v2 import user_changes as v2_users
from cluster.pb import shards_pb2
from cluster.placement.changes import Moved, take_compact
from cluster.placement.table import END, State
from cluster.wire.messages import Method
from cluster.wire.protobuf import varint

if TYPE_CHECKING:
    from cluster.evaluate.replica import Leader

Evaluate = Callable[["Leader", bytes], Outcome]


@dataclass(frozen=True, slots=True)
class Feature:
    name: str
    writes: Mapping[Method, Evaluate]  # how a request is evaluated, at the leader of shard 0
    items: frozenset[Item]  # what it logs: numbers are never reused
    everywhere: frozenset[Method] = field(
        default=frozenset()
    )  # acknowledged once every shard's leader has applied it (I20)


def _grant(leader: Leader, body: bytes) -> Outcome:
    outcome, lease = evaluate.lease_grant(leader.view, body, leader.lessor.min_ttl_s, leader.new_lease_id)
    # I15: whatever the speculative state says of it, what is granted stays so until its end is logged
    if leader.store.lease(lease) is not None and not leader.logs_end_of(lease):
        raise EtcdError(LEASE_EXIST)
    leader.set_lease(lease, True)
    return outcome


def _revoke(leader: Leader, body: bytes) -> Outcome:
    outcome, lease = evaluate.lease_revoke(leader.view, body)
    if not outcome.part:
        leader.set_lease(lease, False)
    return outcome


def _compact(leader: Leader, body: bytes) -> Outcome:
    outcome, revision = evaluate.compact(leader.view, body)
    leader.view.compact_revision = revision
    table = leader.told.table
    if table is not None and (pruned := take_compact(table, revision)) is not table:
        leader.told.placed(pruned)
    return outcome


def _alarm(leader: Leader, body: bytes) -> Outcome:
    outcome, raised = evaluate.set_alarm(leader.view, body, leader.alarms)
    leader.alarms = raised
    return outcome


def _downgrade(leader: Leader, body: bytes) -> Outcome:
    outcome, target = evaluate.set_downgrade(leader.view, body, leader.downgrade)
    leader.downgrade = target
    return outcome


def _publish(leader: Leader, body: bytes) -> Outcome:
    return evaluate.publish(leader.view, body)


@answered
def _auth(leader: Leader, body: bytes) -> Outcome:
    rows = changes.evaluate(leader.auth, body)
    leader.auth.take(rows)
    items = records.rows(encode(RowsOf.AUTH, rows)) if rows else b""
    return Outcome(items, False, b"", [], leader.view.revision)


@answered
def _v2(leader: Leader, body: bytes) -> Outcome:
    if leader.auth.enabled:  # users of version 3 are none of version 2's; a front may not know of them yet
        raise EtcdError(PERMISSION_DENIED)
    evaluate_v2 = v2_users.changed if v2_users.concerns_users(body) else v2.answered
    tree = leader.v2
    rows, answer = evaluate_v2(tree, body)
    tree.take(rows)
    items = records.rows(encode(RowsOf.V2, rows)) if rows else b""
    return Outcome(items, False, answer, [], leader.view.revision)


@answered
def _grow(leader: Leader, body: bytes) -> Outcome:
    """EnableGrowthRequest. A level that is there already is granted again."""
    told = leader.told
    level = parse(shards_pb2.EnableGrowthRequest.FromString, body).level or growth.LEVEL
    growth.check(told.growth, level, told.hosts, told.linked())
    items = b""
    if level > told.growth.level:
        members = growth.members_of(told.hosts)
        told.growth.grow(level, members)
        items = growth.item(level, members)
    return Outcome(items, False, b"\x10" + varint(told.growth.level), [], leader.view.revision)


@answered
def _change_shard(leader: Leader, body: bytes) -> Outcome:
    """A kind (u8), then AddShardRequest, RetireShardRequest, or a wish of ``cluster.features.moves``."""
    told, answer = leader.told, b""
    if body[:1] in _MOVES:
        return _change_move(leader, body)
    births.check_level(told.growth)
    if told.table is None:  # the very first records are being applied
        raise EtcdError(SHARD_HOSTS_CHANGE)
    if body[:1] == bytes((births.ADD,)):
        facts = told.facts()
        births.check_add(told.hosts, told.table, facts)
        shard = births.next_id(told.table)
        items = leader.log_shard(shard, State.FORMING, births.next_slot(told.table), facts.voters)
        answer = b"\x10" + varint(shard)
    else:
        request = parse(shards_pb2.RetireShardRequest.FromString, body[1:])
        shard = request.shard
        births.check_retire(told.growth, told.table, shard, request.with_keys)
        if told.table.owns_anything(shard):  # it does not retire before these have moved
            pieces = told.table.pieces_of(shard, END, END)  # other shards' keys in them have to move, too
            moves.check_room(told.table, [(piece.start, piece.end) for piece in pieces], told.room())
        items = leader.log_shard(shard, State.RETIRING)
    return Outcome(items, False, answer, [], leader.view.revision)


def _change_move(leader: Leader, body: bytes) -> Outcome:
    """A move begins, or ends without a switch."""
    told = leader.told
    moves.check_level(told.growth)
    table = told.table
    if body[0] == moves.MOVE:
        wish = moves.Wish.decode(body[1:])
        moving = moves.check_settled(told.moving)
        assert table is not None, "what has grown has a layout"
        move = moves.check_move(table, wish, leader.view.revision)
        moves.check_room(table, [(move.start, move.end)], told.room())
        number, items = move.number, leader.log_move(move)
    else:
        number = moves.read_cancel(body[1:])
        moving = moves.check_settled(told.moving)
        assert table is not None, "what has grown has a layout"
        moves.check_cancel(table, number)
        moving.stop()
        items = leader.log_moved(Moved(number, False, 0, 0))
    moving.begun()
    return Outcome(items, False, b"\x10" + varint(number), [], leader.view.revision)


_MOVES = (bytes((moves.MOVE,)), bytes((moves.CANCEL,)))

FEATURES = (
    Feature(
        "lease",
        {Method.LEASE_GRANT: _grant, Method.LEASE_REVOKE: _revoke},
        frozenset((Item.LEASE_GRANT, Item.LEASE_REVOKE, Item.LEASE_CHECKPOINT)),
    ),
    Feature("compact", {Method.COMPACT: _compact}, frozenset((Item.COMPACT,)), frozenset((Method.COMPACT,))),
    Feature("alarm", {Method.SET_ALARM: _alarm}, frozenset((Item.ALARM,)), frozenset((Method.SET_ALARM,))),
    Feature("downgrade", {Method.SET_DOWNGRADE: _downgrade}, frozenset((Item.DOWNGRADE,))),
    Feature("members", {Method.PUBLISH: _publish}, frozenset((Item.PUBLISH, Item.INCARNATION))),
    Feature("growth", {Method.GROW: _grow}, frozenset((Item.GROWTH,)), frozenset((Method.GROW,))),
    Feature("shards", {Method.SHARD_CHANGE: _change_shard}, frozenset((Item.SHARD, Item.MOVE, Item.MOVED))),
    Feature("v2", {Method.V2_WRITE: _v2}, frozenset((Item.ROWS,))),
    Feature("auth", {Method.AUTH_CHANGE: _auth}, frozenset((Item.ROWS,)), frozenset((Method.AUTH_CHANGE,))),
)

#: By method, how it is evaluated.
WRITES: dict[int, Evaluate] = {
    method: evaluation for feature in FEATURES for method, evaluation in feature.writes.items()
}
#: Acknowledged once every shard's leader has applied them.
EVERYWHERE: frozenset[int] = frozenset(method for feature in FEATURES for method in feature.everywhere)

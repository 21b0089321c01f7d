"""What a request does, against a view of its shard's state: effect, answer, refusal.

The leader calls one function per write, in order. Each returns an :class:`Outcome` or raises
:class:`EtcdError`, and leaves the view as it is: the leader takes the outcome in before the next call.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import accumulate, takewhile
from typing import Any

from cluster import errors
from cluster.effects import records
from cluster.errors import EtcdError
from cluster.evaluate import plain_put, validate
from cluster.evaluate.txns import plain_txn
from cluster.evaluate.txns import transactions as txn_eval
from cluster.evaluate.txns.compares import Turn
from cluster.evaluate.txns.transactions import apply_put
from cluster.evaluate.validate import check_alarm, parse
from cluster.evaluate.view import Outcome, View
from cluster.faults import answered
from cluster.features import downgrade
from cluster.features.lessor import choose_id, effective_ttl_s
from cluster.grain import GRAIN
from cluster.pb import rpc_pb2 as pb
from cluster.version import CLUSTER_VERSION
from cluster.wire.protobuf import varint

Alarm = tuple[int, int]  # member, etcd's type of alarm


@answered
def put(view: View, request: bytes) -> Outcome:
    """PutRequest."""
    plain = plain_put.evaluate(view, request)
    if plain is not None:
        key, version, item = plain
        return Outcome(b"".join(item), True, b"", [(key, version)], version[1])
    return _put(view, parse(pb.PutRequest.FromString, request))


def _put(view: View, request: Any) -> Outcome:
    validate.check_put(request)
    lease: int = request.lease
    if lease and not view.lease_exists(lease):
        raise EtcdError(errors.LEASE_NOT_FOUND)
    revision = view.revision + 1
    item, version, tail = apply_put(view, request, revision)
    return Outcome(item, True, tail, [(request.key, version)], revision)


@answered
def delete_range(view: View, request: bytes, weigh: txn_eval.Weigh | None = None) -> Outcome:
    """DeleteRangeRequest. ``weigh``: see ``txn_eval.txn``."""
    message: Any = parse(pb.DeleteRangeRequest.FromString, request)
    validate.check_delete_range(message)
    return txn_eval.delete_range(view, message, weigh)


@answered
def txn(view: View, request: bytes, max_ops: int, weigh: txn_eval.Weigh | None = None,
        turn: Turn | None = None) -> Outcome:
    """TxnRequest, read-only ones too (nothing to log then). ``weigh``, ``turn``: see ``txn_eval.txn``."""
    plain = plain_txn.read(request)
    if plain is not None and plain.ops() <= max_ops:
        before = view.revision
        with suppress(plain_txn.Large):
            most_bytes = plain_txn.ANY_BYTES if weigh is None else GRAIN.late_bytes
            outcome, answer = plain_txn.run(view, plain, most_bytes)
            outcome.tail = answer(before)
            return outcome
    message: Any = parse(pb.TxnRequest.FromString, request)
    validate.check_txn(message, max_ops)
    return txn_eval.txn(view, message, weigh, turn)


@answered
def compact(view: View, request: bytes) -> tuple[Outcome, int]:
    """CompactionRequest: the outcome and the compact revision that follows from it."""
    message: Any = parse(pb.CompactionRequest.FromString, request)
    revision: int = message.revision
    # etcd counts "never" as -1, so that the first compaction may name 0
    if revision <= (view.compact_revision or -1):
        raise EtcdError(errors.COMPACTED)
    if revision > view.revision:
        raise EtcdError(errors.FUTURE_REV)
    return Outcome(records.compact(revision), False, b"", [], view.revision), revision


@answered
def set_alarm(view: View, request: bytes, raised: frozenset[Alarm]) -> tuple[Outcome, frozenset[Alarm]]:
    """AlarmRequest that raises an alarm, or disarms one of the ``raised`` ones: the outcome, and those that
    are raised then. The answer names the alarm, if there is or was one."""
    message: Any = parse(pb.AlarmRequest.FromString, request)
    check_alarm(message)
    wanted = (message.memberID, message.alarm)
    activate = message.action == pb.AlarmRequest.ACTIVATE
    if not message.alarm or (not activate and wanted not in raised):
        return Outcome(b"", False, b"", [], view.revision), raised
    named = pb.AlarmMember(memberID=message.memberID, alarm=message.alarm).SerializeToString()
    tail = txn_eval.field(b"\x12", named)
    item = records.alarm(activate, message.alarm, message.memberID)
    return Outcome(item, False, tail, [], view.revision), raised | {wanted} if activate else raised - {wanted}


@answered
def set_downgrade(view: View, request: bytes, enabled: bytes | None) -> tuple[Outcome, bytes | None]:
    """DowngradeRequest that begins a downgrade or cancels the ``enabled`` one: the outcome, and what is
    enabled then."""
    target = downgrade.decide(parse(pb.DowngradeRequest.FromString, request), enabled)
    tail = txn_eval.field(b"\x12", CLUSTER_VERSION.encode())
    return Outcome(records.downgrade(target), False, tail, [], view.revision), target.encode() or None


@answered
def publish(view: View, member: bytes) -> Outcome:
    """A host's attributes, an ``etcdserverpb.Member``."""
    parse(pb.Member.FromString, member)
    return Outcome(records.publish(member), False, b"", [], view.revision)


@answered
def lease_grant(view: View, request: bytes, minimum_s: int, new_id: Callable[[], int]) -> tuple[Outcome, int]:
    """LeaseGrantRequest: the outcome and the lease. ``new_id`` gives 64 random bits for a lease without
    ID."""
    message: Any = parse(pb.LeaseGrantRequest.FromString, request)
    ttl_s = effective_ttl_s(message.TTL, minimum_s)
    lease: int = message.ID
    if not lease:
        lease = choose_id(view.lease_exists, new_id)
    elif view.lease_exists(lease):
        raise EtcdError(errors.LEASE_EXIST)
    tail = b"".join((b"\x10", varint(lease), b"\x18", varint(ttl_s)))
    return Outcome(records.lease_grant(lease, ttl_s), False, tail, [], view.revision), lease


@answered
def lease_revoke(view: View, request: bytes) -> tuple[Outcome, int]:
    """LeaseRevokeRequest: the outcome, which may be a part, and the lease."""
    message: Any = parse(pb.LeaseRevokeRequest.FromString, request)
    lease: int = message.ID
    if not view.lease_exists(lease):
        raise EtcdError(errors.LEASE_NOT_FOUND)
    return revoke(view, lease), lease


def revoke(view: View, lease: int) -> Outcome:
    """A revoke or an expiry of a lease that exists: its keys go with it, in one revision (I15). Where they
    take very many bytes this is a part: some keys go, and the lease stays for what is left."""
    assert view.lease_exists(lease), "I15: a lease is revoked once"  # I15
    keys = view.lease_keys(lease)
    going = going_at_once(keys)
    part = len(going) < len(keys)
    return Outcome(
        records.txn([*map(records.delete, going)]) if part else records.lease_revoke(lease, keys),
        bool(keys), b"", [(key, None) for key in going], view.revision + 1 if keys else view.revision,
        part=part)


def refused_behind_a_part(error: EtcdError) -> EtcdError:
    """What a client is told whose revoke is refused behind its first part: that it may have happened. An
    alarm or changed rights refuse it; a lease that is not there was ended by another one."""
    return error if error.kind is errors.LEASE_NOT_FOUND else EtcdError(errors.TIMEOUT)


def going_at_once(keys: list[bytes]) -> list[bytes]:
    """The first of a lease's keys, or all: those that go in one revision."""
    most = GRAIN.lease_end_bytes
    if size_of_deletes(keys) <= most:
        return keys
    ends = accumulate(records.ITEM.size + len(key) for key in keys)
    return keys[: max(sum(1 for _ in takewhile(most.__ge__, ends)), 1)]


def size_of_deletes(keys: list[bytes]) -> int:
    return records.ITEM.size * len(keys) + sum(map(len, keys))

"""Maintenance/MoveLeader: the leader of shard 0, asked at its own host, hands over; the other shards'
leaders follow it where ``--leader-placement`` says so. The answer comes once this host knows the new
leader."""

from __future__ import annotations

from dataclasses import dataclass

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate import validate
from cluster.pb import rpc_pb2
from cluster.wire.messages import Method
from proxy.routing.router import MethodStats, Waiting
from proxy.shared.context import Call, Context

_NOBODY = 0  # no member's ID: what is asked for it is judged, and refused


@dataclass(slots=True, frozen=True)
class _Moving:
    call: Call
    target: int
    until: float


class MoveLeader:
    """The method's handler."""

    def __init__(self, context: Context, service: str) -> None:
        self._context = context
        self._stats: MethodStats = context.method("unary", service, "MoveLeader")
        self._moving: list[_Moving] = []
        context.on_tick.append(self._look)

    def handle(self, call: Call, data: bytes) -> None:
        """A request. Whom it names is for the node to judge: it knows who votes."""
        context, stats = self._context, self._stats
        stats.started += 1
        if context.no_leader(call, stats):
            return
        try:
            target = validate.parse(rpc_pb2.MoveLeaderRequest.FromString, data).targetID
            home = context.router.routes[0].home
            if home is None or not context.router.has_leader:
                raise EtcdError(errors.NOT_LEADER)
            leads = home.leader == context.common.member_id
        except EtcdError as e:
            context.refuse(call, stats, e)
            return
        context.router.ask(
            call, Method.TRANSFER_LEADER, (target if leads else _NOBODY).to_bytes(8, "little"), 0, stats,
            self._told, target if leads else None,
        )

    def _told(self, waiting: Waiting, status: int, body: bytes) -> None:
        if waiting.call.closed:
            return
        if status != 0:
            error = EtcdError.decode(body)
            if waiting.context is None and error.kind is errors.BAD_LEADER_TRANSFEREE:
                error = EtcdError(errors.NOT_LEADER)  # who may not ask was not even told that
            self._context.refuse(waiting.call, self._stats, error)
            return
        router = self._context.router
        self._moving.append(_Moving(waiting.call, waiting.context, router.loop.time() + router.limit_s))
        self._look(router.loop.time())

    def _look(self, now: float) -> None:
        if not self._moving:
            return
        moving, self._moving = self._moving, []
        leader = self._context.router.routes[0].leader
        for one in moving:
            if one.call.closed:
                continue
            if leader == one.target:
                self._stats.ok += 1
                one.call.reply(b"")  # no header, as etcd's
            elif now >= one.until:
                self._context.refuse(one.call, self._stats, errors.LEADER_TRANSFER_TIMEOUT)
            else:
                self._moving.append(one)

"""etcdserverpb.Maintenance, but for Snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate import validate
from cluster.features import downgrade
from cluster.features.auth.reads import Show
from cluster.pb import rpc_pb2
from cluster.version import ETCD_VERSION
from cluster.wire.messages import HEAD, Method, Status
from proxy.metrics.shard_facts import ShardFacts, gather
from proxy.routing.router import MethodStats, Waiting
from proxy.services.upkeep.backup import Snapshot
from proxy.shared.context import Call, Context, Registry, Serve
from proxy.spanning.gather import OfOwnHost, hash_answer

SERVICE = "etcdserverpb.Maintenance"
_DEFRAGMENT_LIMIT_S = 3600.0  # of one shard; etcd's member has no limit, its client has
_NOBODY = 0  # no member's ID: the node checks the permission, then refuses
# a compaction reaches all shards of a host in milliseconds
_HASH_AGAIN_S, _HASH_TRIES = 0.02, 50


def register(registry: Registry, context: Context) -> None:
    methods: tuple[tuple[str, Any, Serve], ...] = (
        ("Status", rpc_pb2.StatusRequest, _status(context)),
        ("Alarm", rpc_pb2.AlarmRequest, _alarm(context)),
        ("Hash", rpc_pb2.HashRequest, _hash(context)),
        ("HashKV", rpc_pb2.HashKVRequest, _hash_kv(context)),
        ("Defragment", rpc_pb2.DefragmentRequest, _defragment(context)),
        ("MoveLeader", rpc_pb2.MoveLeaderRequest, _MoveLeader(context).handle),
        ("Downgrade", rpc_pb2.DowngradeRequest, _downgrade(context)),
    )
    for name, kind, serve in methods:
        context.unary(registry, SERVICE, name, kind, serve)
    registry.stream(f"/{SERVICE}/Snapshot", Snapshot(context, SERVICE))


def _status(context: Context) -> Serve:
    router = context.router

    def answer(waiting: Waiting, status: int, body: bytes) -> None:
        if context.failed(waiting, status, body):
            return
        call = waiting.call
        response = rpc_pb2.StatusResponse.FromString(body[HEAD.size:])
        response.version = ETCD_VERSION
        if not response.leader and errors.NO_LEADER.text not in response.errors:
            response.errors.insert(0, errors.NO_LEADER.text)
        # now: at a proxy the next answer may be another member's
        header = router.header(*HEAD.unpack_from(body))

        def reply(shards: list[ShardFacts]) -> None:
            others = [facts for facts in shards[1:] if facts["up"]]
            response.dbSize += sum(facts["size_bytes"] for facts in others)
            response.dbSizeInUse += sum(facts["size_in_use_bytes"] for facts in others)
            if not context.given_up(call, waiting.stats):
                waiting.stats.ok += 1
                call.reply(header, response.SerializeToString())

        if len(context.placement.running) == 1:
            reply([])
        else:
            gather(context, reply, anywhere=True)

    def status(call: Call, data: bytes, request: Any, stats: MethodStats) -> None:
        router.own(call, Method.STATUS, b"", 0, stats, answer)  # at once: operators look at hosts behind

    return status


def _alarm(context: Context) -> Serve:
    def alarm(call: Call, data: bytes, request: Any, stats: MethodStats) -> None:
        validate.check_alarm(request)
        if request.action == rpc_pb2.AlarmRequest.GET:
            context.router.read(call, Method.ALARM, data, 0, False, stats)
        else:
            context.check_size(data)
            context.change(call, Method.SET_ALARM, data, stats)

    return alarm


def _hash(context: Context) -> Serve:
    def hash_(call: Call, data: bytes, request: Any, stats: MethodStats) -> None:
        context.router.own(call, Method.HASH, b"", 0, stats)

    return hash_


def _hash_kv(context: Context) -> Serve:
    def ask(call: Call, data: bytes, request: Any, stats: MethodStats) -> None:
        _Hash(context, call, data, max(request.revision, 0), stats).ask()

    def hash_kv(call: Call, data: bytes, request: Any, stats: MethodStats) -> None:
        if not context.router.principals.judged(call):  # a node says first who may ask
            context.router.check_compacted(request.revision)
        ask(call, data, request, stats)

    def again(waiting: Waiting) -> None:
        request = rpc_pb2.HashKVRequest.FromString(waiting.body)
        ask(waiting.call, waiting.body, request, waiting.stats)

    context.router.moved.anew[Method.HASH_KV] = again
    return hash_kv


@dataclass(slots=True)
class _Hash:
    """One hash of this host's replicas of all shards, which must have removed the same versions, and know of
    the moves that their front knows of."""

    context: Context
    call: Call
    data: bytes
    wanted: int
    stats: MethodStats
    left: int = _HASH_TRIES

    def ask(self) -> None:
        context = self.context
        if not context.given_up(self.call, self.stats):
            context.router.seek_own(lambda: context.placement.kept, self._ask)

    def _ask(self) -> None:
        context = self.context
        if context.given_up(self.call, self.stats):
            return
        router, placement = context.router, context.placement
        if context.common.member_id and any(router.own_link(shard) is None for shard in placement.kept):
            context.refuse(self.call, self.stats, errors.TIMEOUT_DUE_TO_LEADER_FAIL)
        elif placement.alone:
            router.recent.when_caught_up((0,), self._ask_one)
        else:
            OfOwnHost(router, self.call, Method.HASH_KV,
                      lambda revision: [(shard, self.data) for shard in placement.kept], True, self.stats,
                      self._answer, context.refuse).start(self.wanted)

    def _ask_one(self) -> None:
        context = self.context
        if not context.placement.alone:
            self.ask()
        elif not context.given_up(self.call, self.stats):
            context.router.own(self.call, Method.HASH_KV, self.data, 0, self.stats)

    def _answer(self, call: Call, revision: int, term: int, tails: list[bytes]) -> None:
        context = self.context
        tail = hash_answer(tails, self.wanted or revision, context.placement.table.pruned)
        if tail is not None:
            self.stats.ok += 1
            call.reply(context.router.header(revision, term), tail)
        elif self.left:
            self.left -= 1
            context.router.loop.call_later(_HASH_AGAIN_S, self.ask)
        else:
            context.refuse(self.call, self.stats, errors.TIMEOUT)


class _Stays:
    """What asks for a client though it goes, with its credentials: a node has to judge them first."""

    closed, deadline = False, None

    def __init__(self, call: Call) -> None:
        self.call, self.principal = call, getattr(call, "principal", None)

    def finish(self, code: int, text: str) -> None:
        if not self.call.closed:
            self.call.finish(code, text)


def _defragment(context: Context) -> Serve:
    """This host's replica of every shard, one after the other, beside requests, though the client goes
    meanwhile, as by etcd. For the others the front asks for itself: a token may end."""
    router, placement = context.router, context.placement

    def ask(call: Call, shard: int, stats: MethodStats) -> None:
        asks = None if shard else _Stays(call)
        router.own(asks, Method.DEFRAGMENT, b"", shard, stats, answered, call, _DEFRAGMENT_LIMIT_S)

    def answered(waiting: Waiting, status: int, body: bytes) -> None:
        call: Call = waiting.context
        following = [shard for shard in placement.running if shard > waiting.shard]
        done = status == Status.OK or waiting.shard not in placement.running  # it was dropped meanwhile
        if done and following:
            ask(call, following[0], waiting.stats)
            return
        context.defragmenting.ends(call)
        if done:
            waiting.stats.ok += 1
            if not call.closed:
                call.reply(b"")  # no header, as etcd's
        else:
            context.refuse(call, waiting.stats, EtcdError.decode(body))

    def begin(call: Call, stats: MethodStats) -> None:
        context.defragmenting.begins(call)
        ask(call, 0, stats)

    def judged(waiting: Waiting, status: int, body: bytes) -> None:
        if not (context.failed(waiting, status, body) or context.given_up(waiting.call, waiting.stats)):
            begin(waiting.call, waiting.stats)

    def handle(call: Call, data: bytes, request: Any, stats: MethodStats) -> None:
        if router.principals.judged(call):
            # before health checks are told. What is asked needs the same permission
            router.local(call, Method.AUTH_SHOW, bytes((Show.STATUS,)), 0, stats, judged)
        else:
            begin(call, stats)

    return handle


def _check_downgrade(request: Any) -> None:
    if request.action not in (downgrade.VALIDATE, downgrade.ENABLE, downgrade.CANCEL):
        raise EtcdError(errors.UNKNOWN_DOWNGRADE_ACTION)
    if request.action != downgrade.CANCEL:
        downgrade.target_version(request.version)


def _downgrade(context: Context) -> Serve:
    """VALIDATE is a linearizable read, ENABLE and CANCEL are writes."""

    def handle(call: Call, data: bytes, request: Any, stats: MethodStats) -> None:
        # a wrong version costs no quorum; a judged client is refused for its permission first, by the node
        if not context.router.principals.judged(call):
            _check_downgrade(request)
        if request.action == downgrade.VALIDATE:
            context.router.read(call, Method.DOWNGRADE, data, 0, False, stats)
        else:
            context.change(call, Method.SET_DOWNGRADE, data, stats)

    return handle


@dataclass(slots=True, frozen=True)
class _Moving:
    call: Call
    stats: MethodStats
    target: int
    until: float


class _MoveLeader:
    """The leader of shard 0, asked at its own host or by a proxy, hands over; with ``--leader-placement`` the
    other shards' leaders follow. The answer comes once this front's node, or a proxy, knows of it."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._moving: list[_Moving] = []
        context.on_tick.append(self._look)

    def handle(self, call: Call, data: bytes, request: Any, stats: MethodStats) -> None:
        context = self._context
        own, home = context.common.member_id, context.router.routes[0].home
        if not context.router.has_leader or (own and home is None):
            raise EtcdError(errors.NOT_LEADER)
        target = request.targetID if home is None or home.leader == own else None
        context.router.ask(
            call, Method.TRANSFER_LEADER, (target or _NOBODY).to_bytes(8, "little"), 0, stats,
            self._told, target)

    def _told(self, waiting: Waiting, status: int, body: bytes) -> None:
        if status != 0:
            error = EtcdError.decode(body)
            if waiting.context is None and error.kind is errors.BAD_LEADER_TRANSFEREE:
                error = EtcdError(errors.NOT_LEADER)  # only a client that may ask learns this
            self._context.refuse(waiting.call, waiting.stats, error)
            return
        router = self._context.router
        until = router.loop.time() + router.limit_s
        self._moving.append(_Moving(waiting.call, waiting.stats, waiting.context, until))
        self._look(router.loop.time())

    def _look(self, now: float) -> None:
        if not self._moving:
            return
        moving, self._moving = self._moving, []
        route = self._context.router.routes[0]
        # the own node's word, as a status right after the answer has it
        leader = route.leader if route.home is None else route.home.leader
        for one in moving:
            if self._context.given_up(one.call, one.stats):
                continue
            if leader == one.target:
                one.stats.ok += 1
                one.call.reply(b"")  # no header, as etcd's
            elif now >= one.until:
                self._context.refuse(one.call, one.stats, errors.LEADER_TRANSFER_TIMEOUT)
            else:
                self._moving.append(one)

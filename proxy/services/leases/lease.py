"""etcdserverpb.Lease. The registry is shard 0's; the sequencer answers keep-alives and times to live after a
confirmation round that began after they arrived (H7)."""

from __future__ import annotations

from functools import partial
from typing import Any

from cluster import errors
from cluster.pb import rpc_pb2
from cluster.wire.messages import HEAD, Method, Status
from proxy.routing.router import MethodStats, Waiting
from proxy.services.leases.keepalive import KeepAlive
from proxy.shared.context import Call, Context, Registry, Serve, UnaryHandler
from proxy.spanning.gather import Gather
from proxy.spanning.lease_keys import lease_keys_pieces
from proxy.spanning.permissions import may_list_leases

SERVICE = "etcdserverpb.Lease"
_SHARD = 0


def register(registry: Registry, context: Context) -> None:
    registry.unary(f"/{SERVICE}/LeaseGrant", _grant(context))
    revoke = context.writing(Method.LEASE_REVOKE)
    context.unary(registry, SERVICE, "LeaseRevoke", rpc_pb2.LeaseRevokeRequest, revoke)
    context.unary(
        registry, SERVICE, "LeaseTimeToLive", rpc_pb2.LeaseTimeToLiveRequest, _time_to_live(context))
    context.unary(registry, SERVICE, "LeaseLeases", rpc_pb2.LeaseLeasesRequest, _leases(context))
    registry.stream(f"/{SERVICE}/LeaseKeepAlive", KeepAlive(context, SERVICE))


def _grant(context: Context) -> UnaryHandler:
    stats = context.method("unary", SERVICE, "LeaseGrant")

    def grant(call: Call, data: bytes, stats: MethodStats = stats) -> None:
        stats.started += 1
        if context.no_leader(call, stats):
            return
        if len(data) > context.most_logged_bytes:
            context.refuse(call, stats, errors.REQUEST_TOO_LARGE)
            return
        context.router.write(call, Method.LEASE_GRANT, data, _SHARD, stats)

    return grant


def _time_to_live(context: Context) -> Serve:
    def with_keys(waiting: Waiting, status: int, body: bytes) -> None:
        if status == Status.PARTIAL:
            waiting.pieces = [*(waiting.pieces or ()), body]
            return
        if context.failed(waiting, status, body):
            return
        body = b"".join((*(waiting.pieces or ()), body))
        ttl, stats = body[HEAD.size :], waiting.stats
        if context.placement.alone:  # a table that the sequencer had applied has come before its answer
            if not context.given_up(waiting.call, stats):
                stats.ok += 1
                waiting.call.reply(context.router.header(*HEAD.unpack_from(body)), ttl)
            return

        def answer(call: Call, revision: int, term: int, tails: list[bytes]) -> None:
            def reply(parts: list[bytes]) -> None:
                stats.ok += 1
                call.reply(context.router.header(revision, term), *parts)

            context.stepped.put_together(
                call, sum(map(len, (ttl, *tails))), lease_keys_pieces(ttl, tails), reply,
                partial(context.refuse, call, stats))

        def ask(revision: int) -> list[tuple[int, bytes]]:
            placement = context.placement
            # a key may have come to shard 0 since that has answered
            return [(shard, waiting.context) for shard in (
                placement.ids if placement.table.spans else placement.others)]

        Gather(
            context.router, waiting.call, Method.LEASE_KEYS, ask, False, stats, answer, context.refuse
        ).start()

    def time_to_live(call: Call, data: bytes, request: Any, stats: MethodStats) -> None:
        if request.keys:
            context.router.ask(call, Method.LEASE_TTL, data, _SHARD, stats, with_keys, data)
        else:
            context.router.ask(call, Method.LEASE_TTL, data, _SHARD, stats)

    return time_to_live


def _leases(context: Context) -> Serve:
    def leases(call: Call, data: bytes, request: Any, stats: MethodStats) -> None:
        # linearizable: a client finds its lease at a host whose replica is behind, too (an etcd member
        # has applied the grant before it answers)
        may_list_leases(
            context.router, call, context.placement,
            lambda: context.router.read(call, Method.LEASE_LEASES, data, _SHARD, False, stats),
            lambda error: context.refuse(call, stats, error))

    return leases

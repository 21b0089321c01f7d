"""etcdserverpb.Lease. The registry is shard 0's; keep-alives and times to live are the sequencer's to answer
(review H7: after a confirmation round begun after they arrived)."""

from __future__ import annotations

from cluster.errors import EtcdError
from cluster.evaluate import validate
from cluster.pb import rpc_pb2
from cluster.wire.messages import HEAD, Method
from proxy.routing.router import Waiting
from proxy.services.leases.keepalive import KeepAlive
from proxy.shared.context import Call, Context, Registry, UnaryHandler
from proxy.spanning.gather import Gather, lease_keys_answer
from proxy.spanning.permissions import may_list_leases

SERVICE = "etcdserverpb.Lease"
_SHARD = 0


def register(registry: Registry, context: Context) -> None:
    """Register the service's methods."""
    registry.unary(f"/{SERVICE}/LeaseGrant", _grant(context))
    registry.unary(f"/{SERVICE}/LeaseRevoke", _revoke(context))
    registry.unary(f"/{SERVICE}/LeaseTimeToLive", _time_to_live(context))
    registry.unary(f"/{SERVICE}/LeaseLeases", _leases(context))
    registry.stream(f"/{SERVICE}/LeaseKeepAlive", KeepAlive(context, SERVICE))


def _grant(context: Context) -> UnaryHandler:
    stats = context.method("unary", SERVICE, "LeaseGrant")

    def grant(call: Call, data: bytes) -> None:
        stats.started += 1
        if not context.no_leader(call, stats):
            context.router.write(call, Method.LEASE_GRANT, data, _SHARD, stats)

    return grant


def _revoke(context: Context) -> UnaryHandler:
    stats = context.method("unary", SERVICE, "LeaseRevoke")

    def revoke(call: Call, data: bytes) -> None:
        stats.started += 1
        if context.no_leader(call, stats):
            return
        try:
            validate.parse(rpc_pb2.LeaseRevokeRequest.FromString, data)
        except EtcdError as e:
            context.refuse(call, stats, e)
            return
        context.router.write(call, Method.LEASE_REVOKE, data, _SHARD, stats)

    return revoke


def _time_to_live(context: Context) -> UnaryHandler:
    stats = context.method("unary", SERVICE, "LeaseTimeToLive")

    def with_keys(waiting: Waiting, status: int, body: bytes) -> None:
        if status != 0:
            if not waiting.call.closed:
                context.refuse(waiting.call, stats, EtcdError.decode(body))
            return
        ttl = body[HEAD.size :]

        def answer(call: Call, revision: int, term: int, blob: bytes) -> None:
            stats.ok += 1
            call.reply(context.router.header(revision, term), lease_keys_answer(ttl, blob))

        requests = [(shard, waiting.context) for shard in range(1, context.placement.shards)]
        Gather(
            context.router, waiting.call, Method.LEASE_KEYS, requests, False, stats, answer, context.refuse
        ).start()

    def time_to_live(call: Call, data: bytes) -> None:
        stats.started += 1
        if context.no_leader(call, stats):
            return
        # here and not at the node: what that does not expect ends it, and a question is asked again elsewhere
        try:
            request = validate.parse(rpc_pb2.LeaseTimeToLiveRequest.FromString, data)
        except EtcdError as e:
            context.refuse(call, stats, e)
            return
        if context.placement.shards > 1 and request.keys:
            context.router.ask(call, Method.LEASE_TTL, data, _SHARD, stats, with_keys, data)
        else:
            context.router.ask(call, Method.LEASE_TTL, data, _SHARD, stats)

    return time_to_live


def _leases(context: Context) -> UnaryHandler:
    stats = context.method("unary", SERVICE, "LeaseLeases")

    def leases(call: Call, data: bytes) -> None:
        stats.started += 1
        if not context.no_leader(call, stats):
            # linearizable: whoever was granted a lease finds it, also at a host whose replica is behind (an
            # etcd answers a grant only once it is applied where it was asked for; a lease has no revision to
            # wait for)
            may_list_leases(
                context.router, call, range(1, context.placement.shards),
                lambda: context.router.read(call, Method.LEASE_LEASES, data, _SHARD, False, stats),
                lambda error: context.refuse(call, stats, error))

    return leases

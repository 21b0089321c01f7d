"""etcdserverpb.Cluster: MemberList. Changing members comes with its own issue and answers UNIMPLEMENTED until then."""

from __future__ import annotations

from cluster.errors import EtcdError
from cluster.evaluate import validate
from cluster.pb import rpc_pb2
from cluster.wire.messages import HEAD, Method
from cluster.wire.protobuf import response_header
from proxy.routing.router import Waiting
from proxy.services.context import Call, Context, Registry

SERVICE = "etcdserverpb.Cluster"


def register(registry: Registry, context: Context) -> None:
    """Register the service's methods."""
    stats = context.method("unary", SERVICE, "MemberList")
    router = context.router

    def answer(waiting: Waiting, status: int, body: bytes) -> None:
        call = waiting.call
        if status != 0:
            if not call.closed:
                context.refuse(call, stats, EtcdError.decode(body))
            return
        _, term = HEAD.unpack_from(body)
        stats.ok += 1
        call.reply(response_header(router.header_prefix, 0, term), body[HEAD.size:])  # no revision in Cluster.*

    def member_list(call: Call, data: bytes) -> None:
        stats.started += 1
        if context.no_leader(call, stats):
            return
        try:
            request = validate.parse(rpc_pb2.MemberListRequest.FromString, data)
        except EtcdError as e:
            context.refuse(call, stats, e)
            return
        if request.linearizable:
            router.read(call, Method.MEMBER_LIST, data, 0, False, stats, answer)
        else:
            router.local(call, Method.MEMBER_LIST, data, 0, stats, answer)

    registry.unary(f"/{SERVICE}/MemberList", member_list)

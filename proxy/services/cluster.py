"""etcdserverpb.Cluster: the members, and changes of them, which go to the leader of shard 0."""

from __future__ import annotations

from typing import Any

from cluster import errors
from cluster.errors import ErrorKind, EtcdError
from cluster.members.checks import checked_urls
from cluster.pb import rpc_pb2
from cluster.wire import messages
from cluster.wire.messages import HEAD, Method
from cluster.wire.protobuf import response_header
from proxy.routing.reads.applied import when_applied
from proxy.routing.router import MethodStats, Router, Waiting
from proxy.routing.waiting import Then
from proxy.shared.context import Call, Context, Registry, Serve

SERVICE = "etcdserverpb.Cluster"
_AT_LEARNER = frozenset(
    (b"/etcdserverpb.KV/Range", b"/etcdserverpb.Maintenance/Status", b"/etcdserverpb.Maintenance/Snapshot"))
_PATIENCE_ELECTIONS = 2  # election timeouts without a leader, after which no member is added
_CHANGES: dict[str, tuple[int, Any]] = {
    "MemberAdd": (messages.MEMBER_ADD, rpc_pb2.MemberAddRequest),
    "MemberRemove": (messages.MEMBER_REMOVE, rpc_pb2.MemberRemoveRequest),
    "MemberUpdate": (messages.MEMBER_UPDATE, rpc_pb2.MemberUpdateRequest),
    "MemberPromote": (messages.MEMBER_PROMOTE, rpc_pb2.MemberPromoteRequest),
}

# etcd's reasons of refused promotions, where clients hear others
_REASONS = {
    errors.MEMBER_NOT_FOUND: "membership: ID not found",
    errors.MEMBER_NOT_LEARNER: "membership: can only promote a learner member",
}


def refused_at_learner(path: bytes, version: bytes = b"") -> EtcdError | None:
    """Why a learner's host does not serve a method, as etcd's; whether it serves a range is decided later.
    ``version``: the client's ``client-api-version``."""
    return None if path in _AT_LEARNER else EtcdError(not_for_learners(version))


def not_for_learners(version: bytes) -> ErrorKind:
    """The error for a client of this version. Before 3.6 a client asks another host after UNAVAILABLE, but
    not after FAILED_PRECONDITION, etcd's answer since 3.6."""
    old = version in (b"3.4", b"3.5")
    return errors.NOT_SUPPORTED_FOR_LEARNER_3_5 if old else errors.NOT_SUPPORTED_FOR_LEARNER


def register(registry: Registry, context: Context) -> None:
    context.unary(registry, SERVICE, "MemberList", rpc_pb2.MemberListRequest, _list(context))
    for name, (kind, request) in _CHANGES.items():
        context.unary(registry, SERVICE, name, request, _change(context, kind))


def _answering(context: Context) -> Then:
    def answer(waiting: Waiting, status: int, body: bytes) -> None:
        if context.failed(waiting, status, body) or context.given_up(waiting.call, waiting.stats):
            return
        _, term = HEAD.unpack_from(body)
        waiting.stats.ok += 1
        # no revision in Cluster.*
        waiting.call.reply(response_header(context.router.header_prefix, 0, term), body[HEAD.size :])

    return answer


def _list(context: Context) -> Serve:
    router, answer = context.router, _answering(context)

    def member_list(call: Call, data: bytes, request: Any, stats: MethodStats) -> None:
        def ask() -> None:
            if context.given_up(call, stats):
                return
            if request.linearizable:
                router.read(call, Method.MEMBER_LIST, data, 0, False, stats, answer)
            else:
                router.local(call, Method.MEMBER_LIST, data, 0, stats, answer)

        context.listing.when_listed(ask)

    return member_list


def _alone(router: Router) -> bool:
    patience_s = _PATIENCE_ELECTIONS * router.election_s
    return not router.has_leader and router.loop.time() - router.leaderless_since > patience_s


def _change(context: Context, kind: int) -> Serve:
    router, strict = context.router, context.settings.strict_reconfig_check
    head = bytes((kind if strict else kind | messages.MEMBERS_LAX,))
    promotes, applied = kind == messages.MEMBER_PROMOTE, _answering(context)

    def answer(waiting: Waiting, status: int, body: bytes) -> None:
        if promotes and status:
            error = EtcdError.decode(body)
            if error.kind is errors.CONTEXT_DEADLINE_EXCEEDED:
                body = EtcdError(errors.NO_LEADER).encode()
            else:
                context.unpromoted[_REASONS.get(error.kind, error.text)] += 1
        if not context.failed(waiting, status, body):
            when_applied(router, waiting.calls(applied), (0,), body)

    def change(call: Call, data: bytes, request: Any, stats: MethodStats) -> None:
        context.check_size(data)
        if kind == messages.MEMBER_ADD:
            checked_urls(request.peerURLs)
            if strict and _alone(router):
                raise EtcdError(errors.UNHEALTHY)
        router.write(call, Method.MEMBERS, head + data, 0, stats, answer)

    return change

"""etcdserverpb.Cluster: the members, and wishes to change them, which go to the leader of shard 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cluster import errors
from cluster.errors import ErrorKind, EtcdError
from cluster.evaluate import validate
from cluster.members.checks import checked_urls
from cluster.pb import rpc_pb2
from cluster.wire.messages import (
    HEAD,
    MEMBER_ADD,
    MEMBER_PROMOTE,
    MEMBER_REMOVE,
    MEMBER_UPDATE,
    MEMBERS_LAX,
    Method,
)
from cluster.wire.protobuf import response_header
from proxy.routing.router import MethodStats, Router, Waiting
from proxy.shared.context import Call, Context, Registry, UnaryHandler

SERVICE = "etcdserverpb.Cluster"
_AT_LEARNER = frozenset(
    (b"/etcdserverpb.KV/Range", b"/etcdserverpb.Maintenance/Status", b"/etcdserverpb.Maintenance/Snapshot")
)
_PATIENCE_ELECTIONS = 2  # a member is added by who has not been without a leader for so many of them
_CHANGES: dict[str, tuple[int, Callable[[bytes], Any]]] = {
    "MemberAdd": (MEMBER_ADD, rpc_pb2.MemberAddRequest.FromString),
    "MemberRemove": (MEMBER_REMOVE, rpc_pb2.MemberRemoveRequest.FromString),
    "MemberUpdate": (MEMBER_UPDATE, rpc_pb2.MemberUpdateRequest.FromString),
    "MemberPromote": (MEMBER_PROMOTE, rpc_pb2.MemberPromoteRequest.FromString),
}


def refused_at_learner(path: bytes, version: bytes = b"") -> EtcdError | None:
    """What a host that stays a learner says to a method, as etcd's does: of a range the service knows whether
    it may. ``version``: the client's ``client-api-version``."""
    return None if path in _AT_LEARNER else EtcdError(not_for_learners(version))


def not_for_learners(version: bytes) -> ErrorKind:
    """What a client of this version is told. One before 3.6 asks another host after UNAVAILABLE, and takes
    FAILED_PRECONDITION, which etcd says since then, for its answer."""
    old = version in (b"3.4", b"3.5")
    return errors.NOT_SUPPORTED_FOR_LEARNER_3_5 if old else errors.NOT_SUPPORTED_FOR_LEARNER


def register(registry: Registry, context: Context) -> None:
    """Register the service's methods."""
    registry.unary(f"/{SERVICE}/MemberList", _list(context))
    for name, (kind, parse) in _CHANGES.items():
        registry.unary(f"/{SERVICE}/{name}", _change(context, name, kind, parse))


def _answering(
    context: Context, stats: MethodStats, unheard: ErrorKind | None = None
) -> Callable[[Waiting, int, bytes], None]:
    """``unheard``: what is said of a request that found no leader in time."""

    def answer(waiting: Waiting, status: int, body: bytes) -> None:
        call = waiting.call
        if status != 0:
            error = EtcdError.decode(body)
            if unheard is not None and error.kind is errors.CONTEXT_DEADLINE_EXCEEDED:
                error = EtcdError(unheard)
            if not call.closed:
                context.refuse(call, stats, error)
            return
        _, term = HEAD.unpack_from(body)
        stats.ok += 1
        # no revision in Cluster.*
        call.reply(response_header(context.router.header_prefix, 0, term), body[HEAD.size :])

    return answer


def _list(context: Context) -> UnaryHandler:
    stats = context.method("unary", SERVICE, "MemberList")
    router, answer = context.router, _answering(context, stats)

    def member_list(call: Call, data: bytes) -> None:
        stats.started += 1
        if context.no_leader(call, stats):
            return
        try:
            request = validate.parse(rpc_pb2.MemberListRequest.FromString, data)
        except EtcdError as e:
            context.refuse(call, stats, e)
            return

        def ask() -> None:
            if call.closed:
                stats.failed(errors.CONTEXT_CANCELED.code)
            elif request.linearizable:
                router.read(call, Method.MEMBER_LIST, data, 0, False, stats, answer)
            else:
                router.local(call, Method.MEMBER_LIST, data, 0, stats, answer)

        context.listing.when_listed(ask)

    return member_list


def _alone(router: Router) -> bool:
    patience_s = _PATIENCE_ELECTIONS * router.election_s
    return not router.has_leader and router.loop.time() - router.leaderless_since > patience_s


def _change(context: Context, name: str, kind: int, parse: Callable[[bytes], Any]) -> UnaryHandler:
    stats = context.method("unary", SERVICE, name)
    router, strict = context.router, context.settings.strict_reconfig_check
    head = bytes((kind if strict else kind | MEMBERS_LAX,))
    unheard = errors.NO_LEADER if kind == MEMBER_PROMOTE else None
    answer = _answering(context, stats, unheard)

    def change(call: Call, data: bytes) -> None:
        stats.started += 1
        if context.no_leader(call, stats):
            return
        try:
            request = validate.parse(parse, data)
            if kind == MEMBER_ADD:
                checked_urls(request.peerURLs)
                if strict and _alone(router):
                    raise EtcdError(errors.UNHEALTHY)
        except EtcdError as e:
            context.refuse(call, stats, e)
            return
        router.write(call, Method.MEMBERS, head + data, 0, stats, answer)

    return change

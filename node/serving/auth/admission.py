"""The way of a request to its judge.

A front names the user by a bit of the method's number (``cluster.features.auth.principal``). While auth is
on, a request without that bit has no user. Such a request is judged where it is evaluated:

| request | judged with | when |
|---|---|---|
| a write of shard 0 | the leader's users and roles, those that are logged among them | when it is evaluated (``node.replica.writes``) |
| a write over several shards, a lone put | the same | when it is evaluated (``cluster.order.sequencing``) |
| a write of another shard | those applied at its leader | when it is evaluated (``cluster.order.leading``) |
| a change of members | the leader's of shard 0 | when it arrives, and when its turn comes (``node.members.changes``) |
| a keep-alive, a time to live | those applied at the leader | after its confirmation |
| a read | those applied at the replica | when it is read |

A change of users and roles is acknowledged once every shard's leader has applied it, as a compaction is
(I20), and what it had evaluated before is in order (``cluster.order.leading.rights``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from cluster.features.auth.judge import JUDGED, judge, may_list
from cluster.features.auth.principal import NOBODY, SAID, Kind, Principal, split
from cluster.features.auth.reads import Show
from cluster.settings import NodeSettings
from cluster.wire.messages import OF_KEYS, Method
from node.kinds import METHOD, WRITES
from node.links.fronts import FrontLink, Request
from node.serving.auth.guard import Guard
from node.serving.confirm import Confirmations
from node.serving.reads import Reads
from node.slicing.slicer import Slices
from node.storage import StateStore
from node.upkeep.growth.sampling import PassOn, Sampling

if TYPE_CHECKING:
    from node.members.roster import Roster
    from node.replica.roles.role import Role
    from node.replica.writes import Writes
    from node.serving.serve import Serve
    from node.serving.txns.uncounted import Uncounted
    from node.upkeep.expiry import Expiry

_NOBODY = NOBODY.encode()
_MAY_LIST = bytes((Show.MAY_LIST,))
_AT_ONCE = 16  # steps of a judgement about all leases, of some 0.1 ms at most
_QUESTIONS = frozenset((Method.LEASE_KEEPALIVE, Method.LEASE_KEEPALIVES, Method.LEASE_TTL))
_AT_LEADER = frozenset(
    (
        Method.PUT,
        Method.DELETE_RANGE,
        Method.TXN,
        Method.COMPACT,
        Method.LEASE_GRANT,
        Method.SET_ALARM,
        Method.SET_DOWNGRADE,
        Method.AUTH_CHANGE,
        Method.LEASE_REVOKE,
        Method.GROW,
        Method.SHARD_CHANGE,
    )
)
_WRITES = _AT_LEADER | {Method.WIDE, Method.LONE}
_ADMINISTRATION = frozenset((Method.TRANSFER_LEADER, Method.MEMBERS, Method.ADVICE))


class AdmissionNode(Protocol):
    settings: NodeSettings
    store: StateStore
    guard: Guard
    reads: Reads
    writes: Writes
    confirmations: Confirmations
    expiry: Expiry
    serve: Serve
    role: Role
    roster: Roster
    uncounted: Uncounted

    def now_ms(self) -> int: ...
    def catch_up(self) -> None: ...
    def take_requests(self, link: FrontLink, requests: list[Request]) -> None: ...


class Admission:
    def __init__(self, node: AdmissionNode) -> None:
        self._node = node
        settings = node.settings
        #: What is asked of this node; None: it does not look.
        self.sampling = Sampling(node.now_ms, settings.common.member_id) if settings.growth != "off" else None
        #: Takes a frame of a front, or of another shard's node, whose own requests have no principal.
        self.requests: PassOn = self._judged
        if self.sampling is not None:
            self.requests = self.sampling.before(self._judged)

    def _judged(self, link: FrontLink, requests: list[Request]) -> None:
        node = self._node
        if not link.member_id and link.watches:
            requests = node.serve.v2.timed(requests)
        judged = link.watches and node.guard.state.enabled
        if link.watches and not judged and not WRITES.issuperset(map(METHOD, requests)):
            # before it is asked whether auth is on: a read sees what is committed here
            node.catch_up()
            judged = node.guard.state.enabled
        if judged:
            requests = [
                (rid, method | SAID, timeout_ms, _NOBODY + body)
                if method in JUDGED
                else (rid, method, timeout_ms, body)
                for rid, method, timeout_ms, body in requests
            ]
        node.take_requests(link, requests)

    def take(self, link: FrontLink, rid: int, method: int, timeout_ms: int, body: bytes) -> bool:
        """A request with a principal, if it is one. EtcdError, if that may not have it evaluated."""
        if not method & SAID:
            return False
        node, inner = self._node, method & ~SAID
        principal, request = split(body)
        if inner in _QUESTIONS:
            # a front asks them for clients alone; without names they have no user
            of_front = principal.kind == Kind.FRONT
            node.confirmations.ask(link, rid, method, _NOBODY + request if of_front else body)
        elif inner not in JUDGED or (principal.kind == Kind.FRONT and inner not in _WRITES):
            node.take_requests(link, [(rid, inner, timeout_ms, request)])
        elif inner == Method.WIDE or inner == Method.LONE:
            if node.settings.shard == 0 and node.role.links is not None:
                node.uncounted.submit(link, rid, method, timeout_ms, body)
            else:  # refused there
                node.take_requests(link, [(rid, inner, timeout_ms, request)])
        elif inner == Method.LEASE_REVOKE and node.settings.shard == 0:
            node.expiry.revoke(link, rid, timeout_ms, request, body[: len(body) - len(request)])
        elif inner in (_AT_LEADER if node.settings.shard == 0 else OF_KEYS):
            node.uncounted.submit(link, rid, method, timeout_ms, body)
        elif inner in _AT_LEADER or inner in _ADMINISTRATION:
            leader = node.writes.leader
            judge(node.guard.state if leader is None else leader.auth, principal, inner, request, node.store)
            if inner == Method.MEMBERS:
                node.roster.changes.submit(link, rid, request, principal)
            else:
                node.take_requests(link, [(rid, inner, timeout_ms, request)])
        else:
            serve = node.serve.reading(inner)

            def judged(link: FrontLink, rid: int, revision: int, request: bytes) -> Slices | None:
                if _is_of_all_leases(inner, request):
                    return self._listed(principal, lambda: serve(link, rid, revision, request))
                judge(node.guard.state, principal, inner, request, node.store)
                return serve(link, rid, revision, request)

            node.reads.submit(link, rid, timeout_ms, request, judged, inner)
        return True

    def late(self, link: FrontLink, rid: int, method: int, timeout_ms: int, body: bytes) -> bool:
        """A read without a principal that waits for an apply: auth may be on by then."""
        if not link.watches or method not in JUDGED:
            return False
        return self.take(link, rid, method | SAID, timeout_ms, _NOBODY + body)

    def _listed(self, principal: Principal, serve: Callable[[], Slices | None]) -> Slices | None:
        """A list of all leases, once its client is judged: at once, unless there are very many."""
        steps = self._judging(principal)
        if sum(1 for _ in islice(steps, _AT_ONCE)) < _AT_ONCE:
            return serve()
        return _in_steps(steps, serve)

    def _judging(self, principal: Principal) -> Iterator[None]:
        node, seen = self._node, -1
        while node.guard.state.revision != seen:  # again if users have changed meanwhile
            seen = node.guard.state.revision
            yield from may_list(node.guard.state, principal, node.store)


def _is_of_all_leases(method: int, request: bytes) -> bool:
    return method == Method.LEASE_LEASES or (method == Method.AUTH_SHOW and request[:1] == _MAY_LIST)


def _in_steps(steps: Iterator[None], serve: Callable[[], Slices | None]) -> Slices:
    for _ in steps:
        yield
    work = serve()
    if work is not None:
        yield from work

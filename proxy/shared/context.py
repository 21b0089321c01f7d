"""What the services share: router, settings, counters, and the rule about streams without a leader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import islice
from typing import Any

from cluster import errors
from cluster.errors import ErrorKind, EtcdError
from cluster.evaluate import validate
from cluster.placement import Placement, Table
from cluster.settings import FrontSettings
from cluster.wire.messages import HEAD, Method, Status
from proxy.auth.passwords import Passwords
from proxy.auth.shown import Principals
from proxy.auth.tokens import tokens_of
from proxy.grpc.registry import Registry as Registry
from proxy.routing.reads.applied import when_applied
from proxy.routing.reads.listing import Listing
from proxy.routing.router import MethodStats, Router, Waiting
from proxy.routing.waiting import ended_with
from proxy.shared.defragmenting import Defragmenting
from proxy.shared.stepped import Stepped
from proxy.watch.hub import WatchHub

Call = Any  # proxy.grpc.calls.Call; Any, so that tests can do without a connection
UnaryHandler = Callable[[Call, bytes], None]
Serve = Callable[[Call, bytes, Any, MethodStats], None]  # a call, its request as it came, and as a message

INNER = "inner"  # in the place of a gRPC type: what services call for their clients
RECEIVE_OVERHEAD_BYTES = 524_288  # of a message above max-request-bytes, as in etcd
# etcd measures the request in its log entry (v3_server.go, processInternalRaftRequestOnce): a header with an
# ID (13 bytes, or 14, by the member's ID; without a user's name here), and the request's tag and size
_HEADER_BYTES, _TAG_BYTES = 13, 1
_ENDED_TOGETHER = 200  # streams without a leader, in a turn
_LEADERLESS_ELECTIONS = 3  # election timeouts, after which guarded streams end


class Context:
    """One per front process."""

    def __init__(self, settings: FrontSettings, router: Router) -> None:
        self.settings = settings
        self.common = settings.common
        self.router = router
        self.placement = Placement(settings.common.shard_count, settings.common.placement_depth)
        router.placed = self._placed
        common = settings.common
        self.most_logged_bytes = _most_logged_bytes(common.max_request_bytes)
        self.hub = WatchHub(router, self.placement, settings.watch_progress_notify_interval_ms / 1000,
                            common.max_request_bytes + RECEIVE_OVERHEAD_BYTES, settings.watch_merge_bytes)
        router.hub = self.hub
        self.principals = Principals(tokens_of(settings.auth_token, settings.auth_token_ttl_s))
        router.principals = self.principals
        self.principals.changed.append(self.hub.permissions.changed)
        self.passwords = Passwords(router.loop, settings.bcrypt_cost)
        self.stats: dict[tuple[str, str, str], MethodStats] = {}  # (grpc_type, service, method)
        self.comparisons = self.corrupt_found = 0  # of all replicas: proxy.services.upkeep.corruption
        self.unpromoted: Counter[str] = Counter()  # refused promotions of learners, by reason
        self.defragmenting = Defragmenting(settings.stop_on_defrag)
        self.leases_renewed = 0
        self.stepped = Stepped(router.loop)
        self.listing = Listing(router)
        self.stopping = False
        self.joins = settings.joining  # until this front serves
        self.on_table: list[Callable[[Table, Table], None]] = []  # with the older one, and it
        self._row = b""  # the last one that came
        self.on_tick: list[Callable[[float], None]] = [self.listing.tick]  # called every sweep, with the time
        self.on_stop: list[Callable[[], None]] = []  # end streams that have no end of their own
        self.guarded: dict[Call, Callable[[Call], None]] = {}  # streams with hasleader -> how to end one
        self._ending = False  # some in each turn

    def _placed(self, row: bytes) -> None:
        """A node has applied this table: others may be behind. ValueError."""
        if row != self._row:  # with each read that has to go elsewhere it comes again
            self.follow(Table.decode(row))
            self._row = row

    def follow(self, table: Table) -> None:
        """From here on this front goes by a table, if it is newer. One of the same number differs only if a
        forced start has dropped a change that this front knows."""
        before = self.placement.table
        if table.generation > before.generation or (
                table.generation == before.generation and table != before):
            self.placement.replace(table)
            self.router.knows_of(table.pruned)  # watches begin behind it
            self.router.moved.tell(table)  # G7: before anything is sent by it
            self.router.follow_shards(self.placement.running, self.placement.ids)
            self.hub.follow(before)  # G9: parts come before the next record is taken
            self.router.moved.ask_unsent()
            for follow in self.on_table:
                follow(before, table)

    def method(self, grpc_type: str, service: str, method: str) -> MethodStats:
        return self.stats.setdefault((grpc_type, service, method), MethodStats())

    def stop(self) -> None:
        self.stopping = True
        for end in self.on_stop:
            end()

    def refuse(self, call: Call, stats: MethodStats, error: EtcdError | ErrorKind) -> None:
        """A call that was given up is only counted."""
        if self.given_up(call, stats):
            return
        if isinstance(error, ErrorKind):
            error = EtcdError(error)
        stats.failed(error.code)
        call.finish(error.code, error.text)

    def given_up(self, call: Call, stats: MethodStats) -> bool:
        """Whether its deadline, its client or this front itself has ended a call, which is counted by that:
        ask once, and not of one whose request is under way to a node without a ``then``, for the router
        counts it."""
        code = ended_with(call, self.router.loop.time())
        if code is not None:
            stats.failed(code)
        return code is not None

    def refuse_empty(self, call: Call, stats: MethodStats) -> None:
        """A stream whose client ended it without a request, in grpc-go's words."""
        stats.failed(errors.Code.UNKNOWN)
        call.finish(errors.Code.UNKNOWN, "EOF")

    def failed(self, waiting: Waiting, status: int, body: bytes) -> bool:
        """Whether a node has answered with an error, which is then the call's answer, too."""
        if status != Status.OK:
            self.refuse(waiting.call, waiting.stats, EtcdError.decode(body))
        return status != Status.OK

    def leader_lacks(self, since: int) -> bool:
        """Whether shard 0's leader is known and speaks a version of links before this one."""
        leader = self.router.routes[0].leader_link
        return leader is not None and leader.version < since

    def writing(self, method: Method, head: bytes = b"") -> Serve:
        """Serves a method as a write of shard 0: ``head``, then the request as it came."""

        def serve(call: Call, data: bytes, request: Any, stats: MethodStats) -> None:
            self.check_size(data)
            self.router.write(call, method, head + data, 0, stats)

        return serve

    def change(self, call: Call, method: Method, body: bytes, stats: MethodStats,
               everywhere: bool = False) -> None:
        """A write of shard 0 that takes no revision: once acknowledged by the leader, it is waited for at
        this host's replica of shard 0, or of all shards that there are by then (``when_applied``)."""
        router = self.router

        def applied(waiting: Waiting, status: int, body: bytes) -> None:
            if not self.given_up(call, stats):
                stats.ok += 1
                call.reply(router.header(*HEAD.unpack_from(body)), body[HEAD.size:])

        def answered(waiting: Waiting, status: int, body: bytes) -> None:
            if not self.failed(waiting, status, body):
                shards = router.routes.keys() if everywhere else (0,)
                when_applied(router, waiting.calls(applied), shards, body)

        router.write(call, method, body, 0, stats, answered)

    def check_size(self, request: bytes) -> None:
        """EtcdError: it is too large for the log."""
        if len(request) > self.most_logged_bytes:
            raise EtcdError(errors.REQUEST_TOO_LARGE)

    def unary(self, registry: Registry, service: str, name: str, kind: Any, serve: Serve) -> None:
        """Register a method: ``serve`` gets the request as a ``kind``, and may raise EtcdError. A body that
        is no such message is refused in grpc-go's words here, because it would end a node."""
        stats = self.method("unary", service, name)

        def handler(call: Call, data: bytes, stats: MethodStats = stats) -> None:
            stats.started += 1
            if self.no_leader(call, stats):
                return
            try:
                serve(call, data, validate.parse(kind.FromString, data), stats)
            except EtcdError as e:
                self.refuse(call, stats, e)

        registry.unary(f"/{service}/{name}", handler)

    def no_stream(self, call: Call, stats: MethodStats,
                  leaderless: Callable[[Call], None] | None = None) -> bool:
        """Whether a stream was refused: at shutdown, or as one with ``hasleader: true`` while this host knows
        no leader. ``leaderless`` is called after three election timeouts without one, if the client asked for
        that."""
        if self.stopping:
            self.refuse(call, stats, errors.STOPPED)
            return True
        if not self.needs_leader(call):
            return False
        if self.no_leader(call, stats):
            return True
        if leaderless is not None:
            self.guarded[call] = leaderless
        return False

    def no_leader(self, call: Call, stats: MethodStats) -> bool:
        """Whether a call with ``hasleader: true`` was refused, as this host knows no leader."""
        if self.needs_leader(call) and not self.router.has_leader:
            self.refuse(call, stats, errors.NO_LEADER)
            return True
        return False

    @staticmethod
    def needs_leader(call: Call) -> bool:
        said: bytes = call.field(b"hasleader")
        return said != b"" and said.partition(b",")[0] == b"true"  # of several the first one counts

    def unguard(self, call: Call) -> None:
        self.guarded.pop(call, None)

    def tick(self, now: float) -> None:
        """Every sweep: end what has waited too long, also streams without a leader."""
        for look in self.on_tick:
            look(now)
        if not self._ending:
            self._end_leaderless()

    def _end_leaderless(self) -> None:
        """Some in each turn: each costs some 30 us, in the middle of an election."""
        router, self._ending = self.router, False
        patience_s = _LEADERLESS_ELECTIONS * router.election_s
        if self.guarded and router.loop.time() - router.leaderless_since > patience_s:
            router.loop.call_soon(self._end_leaderless)
            self._ending = True
            for call in list(islice(self.guarded, _ENDED_TOGETHER)):
                self.guarded.pop(call)(call)


def _most_logged_bytes(max_request_bytes: int) -> int:
    """The largest request whose entry in etcd's log has at most so many bytes."""
    most = max(max_request_bytes - _HEADER_BYTES - _TAG_BYTES, 0)
    return most - (most.bit_length() + 6) // 7  # the size as a varint

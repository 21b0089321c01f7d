"""What the services share: the router, the settings, the counters, and the rule about streams without a
leader."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from cluster import errors
from cluster.errors import ErrorKind, EtcdError
from cluster.evaluate import validate
from cluster.machine import Tracer
from cluster.placement import Placement
from cluster.settings import FrontSettings
from proxy.auth.passwords import Passwords
from proxy.auth.shown import Principals
from proxy.auth.tokens import tokens_of
from proxy.routing.reads.listing import Listing
from proxy.routing.router import MethodStats, Router
from proxy.shared.defragmenting import Defragmenting
from proxy.shared.stepped import Stepped
from proxy.watch.hub import WatchHub

# proxy.grpc.calls.Call; Any here, so that the services can be driven by tests without a connection
Call = Any
UnaryHandler = Callable[[Call, bytes], None]

_RECEIVE_OVERHEAD_BYTES = 524_288  # what a message may have above max-request-bytes, etcd's constant
_LEADERLESS_ELECTIONS = 3  # a stream that asked for a leader ends after so many election timeouts without one


class Registry(Protocol):
    """Where handlers are registered: ``proxy.grpc.registry.Registry``."""

    def unary(self, path: str, handler: UnaryHandler) -> None: ...
    def stream(self, path: str, handler: Any) -> None: ...
    def http(self, path: str, handler: Callable[[Any], None]) -> None: ...
    def served(self, path: str) -> Any: ...
    @property
    def gate(self) -> Callable[[bytes, bytes], EtcdError | None] | None: ...
    @property
    def shown(self) -> Callable[[bytes | None, str | None], Any]: ...

    @property
    def tracer(self) -> Tracer | None: ...


class Context:
    """One per front process."""

    def __init__(self, settings: FrontSettings, router: Router) -> None:
        self.settings = settings
        self.common = settings.common
        self.router = router
        self.placement = Placement(settings.common.shard_count, settings.common.placement_depth)
        common = settings.common
        self.hub = WatchHub(router, self.placement, settings.watch_progress_notify_interval_ms / 1000,
                            common.max_request_bytes + _RECEIVE_OVERHEAD_BYTES, settings.watch_merge_bytes)
        router.hub = self.hub
        self.principals = Principals(tokens_of(settings.auth_token, settings.auth_token_ttl_s))
        router.principals = self.principals
        self._guarded: list[Callable[[], None]] = [self.hub.permissions.changed]
        self.principals.changed = self._users_changed
        self.passwords = Passwords(router.loop, settings.bcrypt_cost)
        self.stats: dict[tuple[str, str, str], MethodStats] = {}  # (grpc_type, service, method)
        self.comparisons = self.corrupt_found = 0  # of all replicas: proxy.services.upkeep.corruption
        self.defragmenting = Defragmenting(settings.stop_on_defrag)
        self.stepped = Stepped(router.loop)
        self.listing = Listing(router)
        self.stopping = False
        self.on_tick: list[Callable[[float], None]] = [self.listing.tick]  # called every sweep, with the time
        self.on_stop: list[Callable[[], None]] = []  # end streams that have no end of their own
        self.guarded: dict[Call, Callable[[Call], None]] = {}  # streams with hasleader -> how to end one

    def method(self, grpc_type: str, service: str, method: str) -> MethodStats:
        """The counters of one method, made when it is registered so that it is exported as 0 from the
        start."""
        return self.stats.setdefault((grpc_type, service, method), MethodStats())

    def when_guarded(self, then: Callable[[], None]) -> None:
        """Have ``then`` called whenever users or roles change while auth is on."""
        self._guarded.append(then)

    def _users_changed(self) -> None:
        for then in self._guarded:
            then()

    def stop(self) -> None:
        """The front shuts down: streams end, so that their clients go elsewhere. Calls are answered as
        ever."""
        self.stopping = True
        for end in self.on_stop:
            end()

    def refuse(self, call: Call, stats: MethodStats, error: EtcdError | ErrorKind) -> None:
        """Answer a call with an error found here."""
        if isinstance(error, ErrorKind):
            error = EtcdError(error)
        stats.failed(error.code)
        call.finish(error.code, error.text)

    def malformed(
        self, call: Call, stats: MethodStats, from_string: Callable[[bytes], object], data: bytes
    ) -> bool:
        """A body that is no such message: the call is answered as grpc-go does, and nothing of it goes to a
        node."""
        try:
            validate.parse(from_string, data)
        except EtcdError as e:
            self.refuse(call, stats, e)
            return True
        return False

    def no_stream(self, call: Call, stats: MethodStats) -> bool:
        """Whether a stream was refused: the front shuts down, or :meth:`no_leader`."""
        if self.stopping:
            self.refuse(call, stats, errors.STOPPED)
            return True
        return self.no_leader(call, stats)

    def no_leader(self, call: Call, stats: MethodStats) -> bool:
        """Metadata ``hasleader: true`` and this host knows no leader: the call is answered NoLeader."""
        if call.field(b"hasleader") == b"true" and not self.router.has_leader:
            self.refuse(call, stats, errors.NO_LEADER)
            return True
        return False

    def guard(self, call: Call, end: Callable[[Call], None]) -> None:
        """Have ``end`` called once this host has been without a leader for three election timeouts, if the
        stream's client asked for that."""
        if call.field(b"hasleader") == b"true":
            self.guarded[call] = end

    def unguard(self, call: Call) -> None:
        """The stream has ended."""
        self.guarded.pop(call, None)

    def tick(self, now: float) -> None:
        """Every sweep: end what has waited too long, streams that have been without a leader among it."""
        for look in self.on_tick:
            look(now)
        if (
            self.guarded
            and now - self.router.leaderless_since > _LEADERLESS_ELECTIONS * self.router.election_s
        ):
            guarded, self.guarded = self.guarded, {}
            for call, end in guarded.items():
                end(call)

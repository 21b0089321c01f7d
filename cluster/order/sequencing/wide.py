"""A transaction over several shards, from its arrival at the sequencer to its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate.footprint import Footprint, footprint, plain_footprint
from cluster.evaluate.requests import refused_behind_a_part
from cluster.evaluate.steps import finish
from cluster.evaluate.txns import plain_txn
from cluster.evaluate.txns.draft import Draft
from cluster.evaluate.txns.plain_txn import Plain
from cluster.evaluate.txns.range_compares import RangeCompares, add_compares
from cluster.features.auth.judge import judge_ahead
from cluster.features.auth.principal import NOBODY, Principal
from cluster.features.auth.state import AuthState
from cluster.order.log import Attempt
from cluster.order.moving.switch import Switch
from cluster.order.prepare import MOST_GRANTED_BYTES, Grant, Touch
from cluster.order.sequencing.fetching import Fetched
from cluster.pb import rpc_pb2 as pb
from cluster.placement import Table
from cluster.wire.messages import Method

T = TypeVar("T")

NEVER = 1 << 62
_LARGE_BYTES = 1 << 20  # a grant that counts; a transaction has 64 participants at most
_MOST_PATIENCE = 6  # the least patience is doubled so many times at most


@dataclass(slots=True)
class Wide(Generic[T]):
    """``token`` None: an expiry."""

    token: T | None
    method: int
    body: bytes
    footprint: Footprint
    leases: list[int]  # to be revoked
    left: list[int] = field(default_factory=list)  # those of them that its multi leaves for another one
    attempt: Attempt | None = None
    looks_at: list[int] = field(default_factory=list)  # leases whose keys are locked and read in every shard
    participants: tuple[int, ...] = ()
    prepares: dict[int, bytes] = field(default_factory=dict)
    touches: dict[int, list[Touch]] = field(default_factory=dict)
    homes: dict[bytes, int] = field(default_factory=dict)  # of a plain one: each key's shard, in this attempt
    grants: dict[int, Grant] = field(default_factory=dict)
    started_ms: int = 0
    sent_ms: int = 0
    behind: Attempt | None = None  # start over once this one is decided
    given_up: int = 0  # attempts that took too long to prepare
    leaderless: int = 0  # the shard whose leader it waits for; 0: none
    placed: Table | None = None  # by which it does
    deadline_ms: int = NEVER  # its client has been told by then that it timed out
    rows: bool = False  # it must see the rows that it deletes, however many
    ahead: int = NEVER  # the lowest revision it names that was in the future when its rows were asked for
    plain: Plain | None = None  # a transaction of single keys at the latest revision
    compares: list[Any] = field(default_factory=list)  # its range compares, each once
    asked: dict[int, list[Any]] = field(default_factory=dict)  # of these, in this attempt
    looked: RangeCompares | None = None  # its range compares, looked at in shard 0 ahead of its turn
    looking: bool = False  # a look is under way
    who: Principal = NOBODY  # asks
    large: Any = None  # its request, if it has very many operations: then it is evaluated ahead of its turn
    draft: Draft | None = None  # of this attempt, once its keys are granted
    surveyed: dict[int, list[Touch]] | None = None  # its touches by shard, if all its keys are single ones
    generation: int = 0  # of changes of placement, when the attempt began (G8)
    switch: Switch | None = None  # it is one
    surveyed_by: int = 0  # of placement, the table
    fetched: Fetched | None = None  # what its answer needs besides, once it is fetched
    judged: bool = False  # by :meth:`refusal`
    error: EtcdError | None = None  # a participant cannot grant it
    begun: bool = False  # a part of it is logged: this ends the leases that are left

    def refusal(self, users: AuthState) -> EtcdError | None:
        """Why it may not begin: judged once before it locks anything, and again under its locks. Otherwise
        requests of clients without rights would hold up all others'."""
        if self.judged or self.token is None or not users.enabled:
            return None
        self.judged = True
        try:
            long = self.looking or self.large is not None
            judge_ahead(users, self.who, self.method, None if long else self.body)
        except EtcdError as e:
            self.looking = False  # a survey is given up
            return e
        return None

    def told(self, error: EtcdError) -> EtcdError:
        """What its client is told of a refusal."""
        return refused_behind_a_part(error) if self.begun else error

    def take(self, shard: int, grant: Grant) -> None:
        """A participant grants. What all bring to a transaction may be too much, too."""
        grants = self.grants
        grants[shard] = grant
        if (grant.size > _LARGE_BYTES and not self.footprint.leases
                and sum([one.size for one in grants.values()]) > MOST_GRANTED_BYTES):
            self.error = EtcdError(errors.REQUEST_TOO_LARGE)
            self.grants = {at: Grant(one.term, [], []) for at, one in grants.items()}

    def rest(self) -> Wide[T]:
        """The end of the leases that its multi leaves. A client's revoke that has begun has no deadline any
        more."""
        return Wide(self.token, self.method, self.body, Footprint(leases=set(self.left)), self.left,
                    who=self.who, begun=True)

    def patience_ms(self, least_ms: int) -> int:
        """How long its prepares may take: at first as without a leader (H19), a switch its limit; then four
        times as long with each attempt, for a read of very many rows would be slow again. An end of leases
        has four times the least at most: the shard that it waits for may only look alive."""
        longer = min(2 * self.given_up, 2 if self.leases else _MOST_PATIENCE)
        return least_ms << longer if self.switch is None else self.switch.limit_ms

    @property
    def pinned(self) -> dict[int, int]:
        """The shards that have pinned rows for its answer, and the hosts there."""
        return {
            shard: grant.member_id for shard, grant in self.grants.items()
            if grant.counts and any(self.touches[shard][at].shown for at in grant.counts)}


def wide_of(token: T | None, method: int, body: bytes, leases: list[int], max_txn_ops: int) -> Wide[T]:
    """One that arrives. EtcdError: malformed."""
    plain = plain_txn.read(body) if method == Method.TXN else None
    if plain is not None and plain.ops() <= max_txn_ops and not plain.of_the_past:
        wanted = plain_footprint(plain)
    else:
        plain = None
        wanted = Footprint(leases=set(leases)) if leases else footprint(method, body)
    wide = Wide(token, method, body, wanted, leases, plain=plain)
    if method == Method.TXN and plain is None:
        found: dict[bytes, pb.Compare] = {}
        finish(add_compares(found, pb.TxnRequest.FromString(body)))
        wide.compares = list(found.values())
    return wide


class Looks(Generic[T]):
    """Which attempts a run looks at: switches, and those that all have granted; the others once one is due.
    A thousand that wait would cost each run 300 us."""

    def __init__(self, heartbeat_ms: int, due_of: Callable[[Wide[T]], int]) -> None:
        """``due_of``: when something is to be done about one that waits, whatever comes until then."""
        self._heartbeat_ms = heartbeat_ms  # within one it is noticed that a client is gone
        self._due_of = due_of
        self._ready: dict[Attempt, Wide[T]] = {}
        self._due_ms = NEVER

    def begun(self, wide: Wide[T], now_ms: int) -> None:
        if wide.attempt is not None and (not wide.participants or wide.switch is not None):
            self._ready[wide.attempt] = wide
        self._due_ms = min(self._due_ms, wide.deadline_ms, now_ms + self._heartbeat_ms)

    def granted(self, wide: Wide[T]) -> None:
        if wide.error is not None:
            self.by(0)
        elif wide.attempt is not None and len(wide.grants) == len(wide.participants):
            self._ready[wide.attempt] = wide

    def ended(self, attempt: Attempt) -> None:
        self._ready.pop(attempt, None)

    def by(self, when_ms: int) -> None:
        """Look at all then, or earlier."""
        self._due_ms = min(self._due_ms, when_ms)

    def at(self, running: Mapping[Attempt, Wide[T]], now_ms: int) -> list[Wide[T]]:
        """What to look at; then :meth:`done`."""
        return list((running if now_ms >= self._due_ms else self._ready).values())

    def done(self, running: Mapping[Attempt, Wide[T]], now_ms: int) -> None:
        if now_ms >= self._due_ms:
            waiting = [wide for attempt, wide in running.items() if attempt not in self._ready]
            self._due_ms = min(map(self._due_of, waiting), default=NEVER)
            if running:
                self.by(now_ms + self._heartbeat_ms)

    def clear(self) -> None:
        self._ready.clear()


@dataclass(slots=True, frozen=True)
class Outgoing:
    shard: int
    method: int
    body: bytes

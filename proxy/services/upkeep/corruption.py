"""Do the hosts' replicas hold the same? Asked from time to time, after compactions, or before a host serves.

The front at the leader's host asks every member's replica of each shard for its hash (HASH_KV) at one
revision. Hashes count as equal or different only where the same has been compacted. Who differs from a
majority is corrupt: a CORRUPT alarm for it is raised, and the cluster refuses writes until that is disarmed.
Without a majority nobody can tell who is right; the alarm then names member 0, as etcd's does."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import structlog

from cluster.errors import EtcdError
from cluster.pb import rpc_pb2
from cluster.wire.messages import HEAD, READ, READ_INDEX_ANSWER, Method
from proxy.metrics.shard_facts import ShardFacts, gather
from proxy.routing.router import READ_ANY, Router, Waiting
from proxy.shared.context import Context

log = structlog.get_logger("corruption")

NOBODY = 0  # the member that an alarm names when nobody can tell who is right
_LIMIT_S = 600.0  # of one comparison: a member that has not answered by then is left out
_REACH_S = 2.0  # and one that cannot be reached for so long
_STEP_S = 0.05
_GREET_S = 10.0  # of finding the other members before a host serves


@dataclass(slots=True, frozen=True)
class Hash:
    """What a replica's hash is of."""

    value: int
    revision: int
    compact_revision: int


def judge(hashes: Mapping[int, Hash], members: int) -> list[int]:
    """The members that are corrupt, of so many in all: nobody, those that differ from a majority, or
    NOBODY."""
    compacted = Counter(found.compact_revision for found in hashes.values())
    if not compacted:
        return []
    at = max(compacted, key=lambda revision: (compacted[revision], revision))
    compared = {member: found for member, found in hashes.items() if found.compact_revision == at}
    values = Counter(found.value for found in compared.values())
    if len(values) < 2:
        return []
    value, count = values.most_common(1)[0]
    if 2 * count <= members:
        return [NOBODY]
    return sorted(member for member, found in compared.items() if found.value != value)


@dataclass(slots=True)
class Comparison:
    """Of one shard's replicas: each member's hash, as far as it answers. Stepped by :meth:`look`."""

    router: Router
    shard: int
    order_index: int  # that the revision needs applied; 0: whatever the replica has
    revision: int
    reach_until: float
    until: float
    unasked: set[int]
    asked: set[int] = field(default_factory=set)
    hashes: dict[int, Hash] = field(default_factory=dict)

    def look(self, now: float) -> bool:
        """Ask those that can be reached by now. Whether this is over."""
        route = self.router.routes[self.shard]
        for member in list(self.unasked):
            route.wanted.add(member)
            route.ensure(member, now)
            link = route.links.get(member)
            if link is None or not link.up or link.leaving:
                continue
            self.unasked.discard(member)
            route.wanted.discard(member)
            self.asked.add(member)
            waiting = Waiting(
                None,
                Method.HASH_KV,
                b"",
                self.shard,
                READ_ANY,
                now,
                max(self.until - now, 0.001),
                self.router.quiet,
                self._answer,
                member,
                READ.pack(self.order_index, self.revision),
            )
            waiting.pieces = []  # no other member's answer will do if the link breaks
            self.router.send(link, waiting)
        if now >= self.reach_until:
            route.wanted -= self.unasked
            self.unasked.clear()
        return now >= self.until or not (self.unasked or self.asked)

    def _answer(self, waiting: Waiting, status: int, body: bytes) -> None:
        self.asked.discard(waiting.context)
        if status == 0:
            found = rpc_pb2.HashKVResponse.FromString(body[HEAD.size :])
            self.hashes[waiting.context] = Hash(found.hash, found.hash_revision, found.compact_revision)
        else:
            log.info(
                "a member's hash is missing",
                shard=self.shard,
                member=f"{waiting.context:x}",
                error=EtcdError.decode(body).text,
            )


class CorruptionChecks:
    """Of one host, by its first front. Nothing is done here unless a flag asks for it."""

    def __init__(self, context: Context) -> None:
        settings = context.settings
        self._context = context
        self._router = context.router
        now = context.router.loop.time()
        self._every_s = settings.corrupt_check_ms / 1000
        self._after_compaction_s = settings.compact_hash_check_ms / 1000
        self._next, self._next_look = now + self._every_s, now + self._after_compaction_s
        self._compacted = 0  # what was compacted when replicas were compared after a compaction last
        self._running: list[Comparison] = []
        self._asking = False
        if settings.index == 0 and (self._every_s or self._after_compaction_s):
            context.on_tick.append(self._tick)

    def _tick(self, now: float) -> None:
        if self._running:
            over = [comparison.look(now) for comparison in self._running]
            if all(over):
                self._compared()
        elif not self._asking and self._leads():
            if self._every_s and now >= self._next:
                self.compare()
            elif self._after_compaction_s and now >= self._next_look:
                self._next_look = now + self._after_compaction_s
                gather(self._context, self._look_at_compactions)
        elif not self._leads():  # whoever leads next waits for a whole interval, as etcd's does
            self._next, self._next_look = now + self._every_s, now + self._after_compaction_s

    def _leads(self) -> bool:
        return self._router.routes[0].leader == self._context.common.member_id

    def _look_at_compactions(self, found: list[ShardFacts]) -> None:
        compacted = min((facts.get("compact_revision", 0) for facts in found), default=0)
        if compacted > self._compacted and not self._running and not self._asking:
            self._compacted = compacted
            self.compare()

    def compare(self) -> None:
        """Begin to compare all shards' replicas at one revision."""
        self._asking = True
        self._router.index(self._indexed)

    def _indexed(self, waiting: Waiting, status: int, body: bytes) -> None:
        self._asking = False
        now = self._router.loop.time()
        self._next = now + self._every_s
        if status != 0:
            log.warning("replicas could not be compared", error=EtcdError.decode(body).text)
            return
        order_index, revision, _ = READ_INDEX_ANSWER.unpack(body)
        self._running = [
            Comparison(
                self._router,
                route.shard,
                order_index,
                revision,
                now + _REACH_S,
                now + _LIMIT_S,
                set(route.members),
            )
            for route in self._router.routes
        ]

    def _compared(self) -> None:
        comparisons, self._running = self._running, []
        self._context.comparisons += 1
        for comparison in comparisons:
            members = len(self._router.routes[comparison.shard].members)
            for member in judge(comparison.hashes, members):
                self._context.corrupt_found += 1
                log.error(
                    "a member's data differs from the others': the CORRUPT alarm is raised",
                    shard=comparison.shard,
                    member=f"{member:x}",
                    revision=comparison.revision,
                    hashes=_shown(comparison.hashes),
                )
                self._raise(member)
        log.debug(
            "compared the replicas", shards=len(comparisons), members=[len(c.hashes) for c in comparisons]
        )

    def _raise(self, member: int) -> None:
        alarm = rpc_pb2.AlarmRequest(
            action=rpc_pb2.AlarmRequest.ACTIVATE, memberID=member, alarm=rpc_pb2.CORRUPT
        )
        self._router.write(None, Method.SET_ALARM, alarm.SerializeToString(), 0, self._router.quiet, _raised)


def _raised(waiting: Waiting, status: int, body: bytes) -> None:
    if status != 0:  # the next comparison asks again
        log.warning("the CORRUPT alarm could not be raised", error=EtcdError.decode(body).text)


def _shown(hashes: Mapping[int, Hash]) -> dict[str, int]:
    return {f"{member:x}": found.value for member, found in hashes.items()}


async def differs(context: Context) -> str:
    """Before a host serves: why it must not, or "". It is compared with those members that answer within
    some seconds, at the revision that its own replica has applied; who is behind that, or has compacted it,
    is left out."""
    router, own = context.router, context.common.member_id
    loop = router.loop
    until = loop.time() + _GREET_S
    for route in router.routes:
        others: Collection[int] = set(route.members) - {own}
        mine = Comparison(router, route.shard, 0, 0, until, loop.time() + _LIMIT_S, {own})
        while not mine.look(loop.time()):
            await asyncio.sleep(_STEP_S)
        if own not in mine.hashes or not others:
            continue
        of_own = mine.hashes[own]
        if not of_own.revision:
            continue
        theirs = Comparison(
            router, route.shard, 0, of_own.revision, until, loop.time() + _LIMIT_S, set(others)
        )
        while not theirs.look(loop.time()):
            await asyncio.sleep(_STEP_S)
        same = {
            m: found
            for m, found in theirs.hashes.items()
            if found.compact_revision == of_own.compact_revision
        }
        agree = sum(found.value == of_own.value for found in same.values())
        if agree < len(same) and 2 * (agree + 1) <= len(route.members):
            return (
                f"this host's data differs from that of its cluster (shard {route.shard}, "
                f"revision {of_own.revision}, hashes "
                f"{_shown({own: of_own, **same})}): replace it"
            )
    return ""

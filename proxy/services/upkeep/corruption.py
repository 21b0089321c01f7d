"""Whether the hosts' replicas hold the same data. The front at the leader's host asks every member's replica
of each shard for its hash (HASH_KV) at one revision; hashes count where the same revision is compacted. A
member that differs from a majority gets a CORRUPT alarm, and the cluster refuses writes until that is
disarmed. Without a majority the alarm names member 0, as etcd's does."""

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

NOBODY = 0  # the member that an alarm names without a majority
_LIMIT_S = 600.0  # of one comparison
_REACH_S = 2.0  # until a member has a link
_STEP_S = 0.05
_GREET_S = 10.0  # of finding the other members before a host serves


@dataclass(slots=True, frozen=True)
class Hash:
    value: int
    revision: int
    compact_revision: int


def judge(hashes: Mapping[int, Hash], members: int) -> list[int]:
    """The corrupt members, of ``members`` in all: none, those that differ from a majority, or NOBODY."""
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
    router: Router
    shard: int
    order_index: int  # to be applied first; 0: any
    revision: int
    reach_until: float
    until: float
    unasked: set[int]
    asked: set[int] = field(default_factory=set)
    hashes: dict[int, Hash] = field(default_factory=dict)

    def look(self, now: float) -> bool:
        """Ask the members that can be reached. Whether this is over."""
        if (route := self.router.routes.get(self.shard)) is None:
            return True  # dropped meanwhile
        for member in list(self.unasked):
            route.wanted.add(member)
            route.ensure(member, now)
            link = route.links.get(member)
            if link is None or not link.usable:
                continue
            self.unasked.discard(member)
            route.wanted.discard(member)
            self.asked.add(member)
            waiting = Waiting(
                None, Method.HASH_KV, b"", self.shard, READ_ANY, now, max(self.until - now, 0.001),
                self.router.quiet,
            ).calls(self._answer, member, READ.pack(self.order_index, self.revision))
            waiting.pieces = []  # no other member's answer counts
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
            error = EtcdError.decode(body).text
            member = f"{waiting.context:x}"
            log.info("a member's hash is missing", shard=self.shard, member=member, error=error)


class CorruptionChecks:
    """Of one host, by its first front; idle without its flags."""

    def __init__(self, context: Context) -> None:
        settings = context.settings
        self._context = context
        self._router = context.router
        now = context.router.loop.time()
        self._every_s = settings.corrupt_check_ms / 1000
        self._after_compaction_s = settings.compact_hash_check_ms / 1000
        self._next, self._next_look = now + self._every_s, now + self._after_compaction_s
        self._compacted = 0  # revision of the last compaction with a comparison
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
        elif not self._leads():  # a new leader waits for a whole interval, as etcd's does
            self._next, self._next_look = now + self._every_s, now + self._after_compaction_s

    def _leads(self) -> bool:
        return self._router.routes[0].leader == self._context.common.member_id != 0

    def _look_at_compactions(self, found: list[ShardFacts]) -> None:
        compacted = min((facts["compact_revision"] for facts in found
                         if facts["up"] and facts["state"] != "forming"), default=0)
        if compacted > self._compacted and not self._running and not self._asking:
            self._compacted = compacted
            self.compare()

    def compare(self) -> None:
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
        until = now + _LIMIT_S
        self._running = [
            Comparison(self._router, r.shard, order_index, revision, now + _REACH_S, until, set(r.members))
            for r in self._router.routes.values()
        ]

    def _compared(self) -> None:
        comparisons, self._running = self._running, []
        self._context.comparisons += 1
        for comparison in comparisons:
            if (route := self._router.routes.get(comparison.shard)) is None:
                continue  # dropped meanwhile
            members = len(route.members)
            for member in judge(comparison.hashes, members):
                self._context.corrupt_found += 1
                log.error(
                    "a member's data differs from the others': the CORRUPT alarm is raised",
                    shard=comparison.shard, member=f"{member:x}", revision=comparison.revision,
                    hashes=_shown(comparison.hashes))
                self._raise(member)
        counts = [len(comparison.hashes) for comparison in comparisons]
        log.debug("compared the replicas", shards=len(comparisons), members=counts)

    def _raise(self, member: int) -> None:
        alarm = rpc_pb2.AlarmRequest(
            action=rpc_pb2.AlarmRequest.ACTIVATE, memberID=member, alarm=rpc_pb2.CORRUPT)
        self._router.write(None, Method.SET_ALARM, alarm.SerializeToString(), 0, self._router.quiet, _raised)


def _raised(waiting: Waiting, status: int, body: bytes) -> None:
    if status != 0:  # the next comparison asks again
        log.warning("the CORRUPT alarm could not be raised", error=EtcdError.decode(body).text)


def _shown(hashes: Mapping[int, Hash]) -> dict[str, int]:
    return {f"{member:x}": found.value for member, found in hashes.items()}


async def _over(comparison: Comparison) -> None:
    while not comparison.look(comparison.router.loop.time()):
        await asyncio.sleep(_STEP_S)


async def differs(context: Context) -> str:
    """Why a host must not begin to serve, or "". Members that answer within some seconds are compared, at the
    revision that the own replica has applied; others, and those behind it or compacted beyond it, do not
    count."""
    router, own = context.router, context.common.member_id
    loop = router.loop
    until = loop.time() + _GREET_S
    for route in router.routes.values():
        others: Collection[int] = set(route.members) - {own}
        mine = Comparison(router, route.shard, 0, 0, until, loop.time() + _LIMIT_S, {own})
        await _over(mine)
        if own not in mine.hashes or not others:
            continue
        of_own = mine.hashes[own]
        if not of_own.revision:
            continue
        theirs = Comparison(
            router, route.shard, 0, of_own.revision, until, loop.time() + _LIMIT_S, set(others))
        await _over(theirs)
        at = of_own.compact_revision
        same = {m: found for m, found in theirs.hashes.items() if found.compact_revision == at}
        agree = sum(found.value == of_own.value for found in same.values())
        if agree < len(same) and 2 * (agree + 1) <= len(route.members):
            hashes = _shown({own: of_own, **same})
            return (
                f"this host's data differs from that of its cluster (shard {route.shard}, "
                f"revision {of_own.revision}, hashes {hashes}): replace it")
    return ""

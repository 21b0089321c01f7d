"""Serializable reads never go back at one host (I14): they wait for the replica to have what its fronts had
shown as the read came, for a while at most: a replica that is cut off still serves. One that is behind is
asked to hurry, by CATCH_UP: records come late where no client waits (``node.replica.shards.feed``).

Nor does a restart take a host back (decision 83). A front asks once how far the order is before its first
serializable read or watch. Without an answer, as without a majority, it goes by the own host's node 0, which
starts with all that it had applied (I25). A replica that has just started reads its log, and is waited for
longer while its shard has a leader or it still comes nearer.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from itertools import chain
from typing import NamedTuple

from cluster import errors
from cluster.wire.messages import READ, READ_INDEX_ANSWER, Method
from proxy.routing.links import Link
from proxy.routing.sending import Sending
from proxy.routing.waiting import OK, READ_ANY, Then, Waiting

WAIT_S = 0.5
# for an answer to how far the order is; at least an election timeout: hosts may start together
ASK_S = 1.0
START_S = 5.0  # for a replica that came up so lately, and has not had yet what was shown before
_LIMIT = 20_000
_REVISION = struct.Struct("<Q")


class _Behind(NamedTuple):
    since: float
    shards: tuple[int, ...]
    then: Callable[[], None]
    read: Waiting | None  # None: one of several shards
    needed: int  # the highest revision that this host had shown as it came: writes go on meanwhile


class RecentReads:
    def __init__(self, router: Sending, index: Callable[[Then], None]) -> None:
        """``index`` asks how far the order is."""
        self.knows = False  # how far the order was when this front started, or later
        self._asked = False  # a question about it is under way
        self._asked_at: float | None = None  # the first one
        self._learned = 0  # what that told: reads that came before need it, too
        self._order = 0  # the index, likewise: changes of version 2 and of users take no revision
        self._asked_of: Link | None = None  # shard 0's replica, whether it has applied that
        self._elsewhere = 0  # the highest revision that fronts of this host had shown as the last read came
        self._router = router
        self._index = index
        self._behind: deque[_Behind] = deque()
        # Of these a replica is missing: sweeps alone look at them. By their shards, in order of time
        self._lacking: dict[tuple[int, ...], deque[_Behind]] = {}
        self._lack = 0  # so many
        # by shard: its replica, how far that is, since when
        self._reached: dict[int, tuple[Link, int, float]] = {}

    def read(self, waiting: Waiting) -> None:
        """To the replica of its shard, once that is recent enough."""
        self._look()
        router, shards = self._router, (waiting.shard,)
        route = router.routes.get(waiting.shard)
        if route is None or route.replica is None or self._caught_up(shards, self.highest):
            router.to_replica(waiting)
        elif len(self._behind) >= _LIMIT:
            router.fail(waiting, errors.TOO_MANY_REQUESTS)
        else:
            self._behind.append(_Behind(
                waiting.started, shards, lambda: router.to_replica(waiting), waiting, self.highest))

    def when_caught_up(self, shards: tuple[int, ...], then: Callable[[], None]) -> None:
        """Call back once the replicas of all these shards have what this host has shown, or after a
        while."""
        self._look()
        if self._caught_up(shards, self.highest):
            then()
        else:
            self._behind.append(_Behind(self._router.loop.time(), shards, then, None, self.highest))

    @property
    def highest(self) -> int:
        """What this host has shown, as far as a read here needs to know."""
        highest = self._router.highest
        return highest if highest > self._elsewhere else self._elsewhere

    def _look(self) -> None:
        if (shared := self._router.shared) is not None:
            self._elsewhere = shared.revision

    def take(self, wanted: Callable[[Waiting], bool]) -> list[Waiting]:
        """Remove some of the reads that wait here: they are asked again."""
        behind, self._behind = self._behind, deque()
        taken: list[Waiting] = []
        for entry in behind:
            if (waiting := entry.read) is not None and wanted(waiting):
                taken.append(waiting)
            else:
                self._behind.append(entry)
        return taken

    def _caught_up(self, shards: tuple[int, ...], needed: int) -> bool:
        """Whether these shards' replicas have what this host had shown; one that has not is asked to hurry,
        to what it has shown by now."""
        router = self._router
        if not self.knows:
            if not self._asked:
                self._asked = True
                if self._asked_at is None:
                    self._asked_at = router.loop.time()
                self._index(self._heard)
            return False
        behind = False
        if needed < self._learned:
            needed = self._learned
        for shard in shards:
            route = router.routes.get(shard)
            link = route.replica if route is not None else None
            if route is None:
                pass  # it is dropped, and had no key any more
            elif link is None:
                behind = True
            elif link.revision < needed:
                behind = True
                if link.hurried < needed:
                    link.hurried = self.highest
                    router.post(link, 0, Method.CATCH_UP, _REVISION.pack(link.hurried))
            elif not shard and link.applied < self._order:
                behind = True
                self._ask(link)
            elif not link.settled:
                link.settled = link.revision >= self.highest
        return not behind

    def _heard(self, _: Waiting, status: int, body: bytes) -> None:
        self._asked = False
        if status != OK:
            return
        order_index, latest, _ = READ_INDEX_ANSWER.unpack(body)
        self._learn(order_index, latest)
        self.release()

    def _ask(self, link: Link) -> None:
        """Whether shard 0's replica has applied what was in order: once, as its next STATE may come late."""
        if link is self._asked_of:
            return
        self._asked_of = link
        router = self._router
        # FACTS are not judged: this front may not have heard yet that there are users
        facts = Waiting(
            None, Method.FACTS, b"", 0, READ_ANY, router.loop.time(), router.limit_s, router.quiet)
        facts.pieces = []  # it ends with the link
        router.send(link, facts.calls(self._applied, (link, self._order), READ.pack(self._order, 0)))

    def _applied(self, waiting: Waiting, status: int, _: bytes) -> None:
        link, order_index = waiting.context
        if status == OK and link.applied < order_index:
            link.applied = order_index
            self.release()

    def stands(self, link: Link | None) -> bool:
        """Whether the answer is known, and shard 0's replica has all that was in order."""
        return self.knows and link is not None and link.applied >= self._order

    def _learn(self, order_index: int, revision: int) -> None:
        self.knows = True
        self._order = max(self._order, order_index)
        self._learned = max(self._learned, revision)
        self._router.knows_of(revision)

    def _goes_by_the_own_node(self, now: float) -> None:
        """Without an answer: what the own node 0 had applied before it started is what was shown here."""
        own = self._router.routes[0].home
        if (self._asked_at is not None and now - self._asked_at >= max(ASK_S, self._router.election_s)
                and own is not None and own.applied >= own.began):
            self._learn(own.applied, own.revision)

    def _patient(self, behind: _Behind, now: float) -> bool:
        for shard in behind.shards:
            route = self._router.routes.get(shard)
            if route is None:
                continue
            link = route.replica
            if link is None:
                # reads of several shards wait for one here, a read of one where it is sent
                if behind.read is None and now - behind.since <= self._router.limit_s and (
                        len(self._behind) + self._lack < _LIMIT):
                    return True
            elif not link.settled and now - link.up_at < START_S and (
                    not self.knows or link.leader or self._moves(link, now)):
                return True
        return False

    def _moves(self, link: Link, now: float) -> bool:
        """Whether a replica came nearer lately: without a leader it may lack an entry for good."""
        reached = self._reached.get(link.shard)
        if reached is None or reached[0] is not link or reached[1] != link.revision:
            self._reached[link.shard] = link, link.revision, now
            return True
        return now - reached[2] < WAIT_S

    def sweep(self) -> None:
        """Time has passed. There may be thousands of reads: those of the same shards that still lack a
        replica need one look, beside the overdue ones."""
        now = self._router.loop.time()
        for shards, lacking in list(self._lacking.items()):
            self._caught_up(shards, lacking[-1].needed)  # the others are asked to hurry
            if not self._lacks(shards):
                self._behind.extendleft(reversed(lacking))
                self._lack -= len(lacking)
                lacking.clear()
            while lacking and now - lacking[0].since > WAIT_S and not self._patient(lacking[0], now):
                self._lack -= 1
                lacking.popleft().then()
            if not lacking:
                del self._lacking[shards]
        self.release()

    def release(self) -> None:
        """Replicas have got further."""
        if not self._behind:
            return
        now = self._router.loop.time()
        if not self.knows:
            self._goes_by_the_own_node(now)
        behind, self._behind = self._behind, deque()
        for entry in behind:
            if entry.read is not None and entry.read.left:
                self._router.gone(entry.read)
                continue
            caught_up = self._caught_up(entry.shards, entry.needed)
            if caught_up or (now - entry.since > WAIT_S and not self._patient(entry, now)):
                entry.then()
            elif entry.read is None and self._lacks(entry.shards):
                self._lacking.setdefault(entry.shards, deque()).append(entry)
                self._lack += 1
            else:
                self._behind.append(entry)

    def close(self) -> None:
        """Nothing comes any more: what waits goes on, and fails for want of a replica."""
        behind = [*self._behind, *chain.from_iterable(self._lacking.values())]
        self._behind.clear()
        self._lacking.clear()
        self._lack = 0
        for entry in behind:
            entry.then()

    def _lacks(self, shards: tuple[int, ...]) -> bool:
        routes = self._router.routes
        return any((route := routes.get(shard)) is not None and route.replica is None for shard in shards)

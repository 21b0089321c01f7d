"""A host that has joined serves once its copies hold what was there before.

An etcd that joins serves once it has applied its own publication. Here a front asks once how far the order
is, which is after its host was added. Then it asks the own host's nodes until each has applied that much.
Shard 0's is asked first: it knows which shards own keys by then, and whether this host is listed as started.
Until then no client port is open.

A host without a majority does not get so far. Once it has served, it never asks again
(``tools.muster.host.identity``): its copies go on from its disk, as those of any host that starts again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from cluster.wire.messages import READ, READ_INDEX_ANSWER, Method, Status
from proxy.routing.reads.listing import lists
from proxy.routing.router import READ_ANY, Router, Waiting


class Arrival:
    def __init__(
        self, router: Router, owners: Callable[[], Collection[int]], arrived: Callable[[], None]
    ) -> None:
        """``owners``: the shards that own keys, now or in a past that is shown, as this front knows;
        ``arrived`` is called once."""
        self.over = False
        self._router = router
        self._owners = owners
        self._arrived = arrived
        self._wanted: int | None = None  # index of the order that all copies are to have applied
        self._asking = False  # how far the order is
        self._applied = False  # at shard 0's node
        self._asked: set[int] = set()  # shards whose node owes an answer
        self._whole: set[int] = set()  # shards whose copy has what is wanted

    def tick(self, now: float) -> None:
        """Every sweep: ask what is not known yet."""
        if self.over:
            return
        if self._wanted is None:
            if not self._asking:
                self._asking = True
                self._router.index(self._indexed)
            return
        lacking = set(self._owners() if 0 in self._whole else (0,)) - self._whole
        for shard in sorted(lacking - self._asked):
            self._ask(shard, now)
        if not lacking:
            self.over = True
            self._arrived()

    def _indexed(self, _: Waiting, status: int, body: bytes) -> None:
        self._asking = False
        if status == Status.OK:
            self._wanted, _, _ = READ_INDEX_ANSWER.unpack(body)

    def _ask(self, shard: int, now: float) -> None:
        router = self._router
        route = router.routes.get(shard)
        if self._wanted is None or route is None or route.home is None:
            return
        self._asked.add(shard)
        # FACTS may take as long as it takes: no client waits for it, and it is not logged as slow
        method = Method.FACTS if shard or not self._applied else Method.MEMBER_LIST
        waiting = Waiting(None, method, b"", shard, READ_ANY, now, router.limit_s, router.quiet)
        waiting.calls(self._heard, None, READ.pack(self._wanted, 0))
        waiting.pieces = []  # no other host's answer counts
        router.send(route.home, waiting)

    def _heard(self, waiting: Waiting, status: int, body: bytes) -> None:
        self._asked.discard(waiting.shard)
        if status != Status.OK:
            return
        if not waiting.shard:
            self._applied = True
        if waiting.shard or (
                waiting.method == Method.MEMBER_LIST and lists(body, self._router.common.member_id)):
            self._whole.add(waiting.shard)

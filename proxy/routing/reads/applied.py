"""A change that takes no revision is answered once this host shows it: an etcd member has applied what it
acknowledges. Here the leader has, and the host that was asked learns of it some milliseconds later, or
seconds later where it is behind. Clients rely on it: ``etcdctl member add`` lists the members right after. So
a backup begins once all that was in order is in it, and a compaction with ``physical`` ends once the replicas
that this host reads from have removed old data."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from functools import partial

from cluster.wire.messages import HEAD, READ, READ_INDEX_ANSWER, Method, Status
from proxy.routing.links import Link
from proxy.routing.reads.recent import WAIT_S
from proxy.routing.router import READ_ANY, Router, Waiting
from proxy.routing.routes import ShardRoute
from proxy.routing.waiting import Then

_AGAIN_S, _AGAIN_MOST_S = 0.01, 0.5  # a compaction takes milliseconds, or minutes


def when_applied(router: Router, waiting: Waiting, shards: Collection[int], answer: bytes = b"") -> None:
    """Tell a client's request its answer once the nearest nodes of these shards have applied all that is in
    order now; after some ``WAIT_S`` at most, for a host that is behind still answers. ``then`` looks whether
    the call has ended meanwhile."""
    _Applied(router, waiting, shards, answer).index()


def when_removed(router: Router, waiting: Waiting, shards: Collection[int],
                 stopping: Callable[[], bool]) -> None:
    """The same once the nodes that reads go to have also removed what compactions made superfluous. They are
    asked again for as long as the request may take, and this front is not ``stopping``."""
    _Removed(router, waiting, shards, stopping).index()


class _Applied:
    def __init__(self, router: Router, waiting: Waiting, shards: Collection[int], answer: bytes) -> None:
        self._router = router
        self._waiting = waiting
        self._left = set(shards)
        self._answer = answer
        self._began = self._asked_at = router.loop.time()

    def index(self) -> None:
        self._router.read_index.add(self._ask(Method.READ_INDEX, 0, b"", self._indexed))

    def _ask(self, method: Method, shard: int, prefix: bytes, answered: Then) -> Waiting:
        asked = Waiting(None, method, b"", shard, READ_ANY, self._asked_at, WAIT_S, self._router.quiet)
        return asked.calls(answered, None, prefix)

    def _indexed(self, _: Waiting, status: int, body: bytes) -> None:
        if status == Status.OK:
            order_index, _, _ = READ_INDEX_ANSWER.unpack(body)
            for shard in tuple(self._left):
                self._look(shard, READ.pack(order_index, 0))
        elif not self._again(self.index):
            self._waiting.tell(Status.OK, self._answer)

    def _look(self, shard: int, prefix: bytes) -> None:
        # FACTS are not judged: this front may not have heard yet that there are users
        facts = self._ask(Method.FACTS, shard, prefix, self._told)
        facts.pieces = []  # it ends with the link
        route = self._router.routes.get(shard)
        link = None if route is None else self._node(route)
        if link is None:
            self._told(facts, Status.ERROR, b"")
        else:
            self._router.send(link, facts)

    def _told(self, asked: Waiting, status: int, body: bytes) -> None:
        shard = asked.shard
        if (shard in self._router.routes and not (status == Status.OK and self._done(body))
                and self._again(partial(self._look, shard, asked.prefix))):
            return
        self._left.discard(shard)
        if not self._left:
            self._waiting.tell(Status.OK, self._answer)

    def _node(self, route: ShardRoute) -> Link | None:
        return route.nearest

    def _done(self, facts: bytes) -> bool:
        return True

    def _again(self, ask: Callable[[], None]) -> bool:
        """Whether it is asked once more."""
        return False


class _Removed(_Applied):
    def __init__(self, router: Router, waiting: Waiting, shards: Collection[int],
                 stopping: Callable[[], bool]) -> None:
        super().__init__(router, waiting, shards, b"")
        self._stopping = stopping

    def _node(self, route: ShardRoute) -> Link | None:
        return route.replica

    def _done(self, facts: bytes) -> bool:
        return not json.loads(facts[HEAD.size:]).get("compacting")

    def _again(self, ask: Callable[[], None]) -> bool:
        loop, waiting = self._router.loop, self._waiting
        now = loop.time()
        if waiting.left or self._stopping() or now - waiting.started > waiting.limit_s:
            return False
        pause_s = min(max((now - self._began) / 4, _AGAIN_S), _AGAIN_MOST_S)
        self._asked_at = now + pause_s
        loop.call_later(pause_s, ask)
        return True

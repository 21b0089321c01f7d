"""A change that takes no revision is answered once this host shows it: an etcd member has applied what it
acknowledges. Here the leader has, and the host that was asked learns of it some milliseconds later, or
seconds later where it is behind. Clients rely on it: ``etcdctl member add`` lists the members right after. So
a backup begins once all that was in order is in it."""

from __future__ import annotations

from collections.abc import Collection

from cluster.wire.messages import READ, READ_INDEX_ANSWER, Method, Status
from proxy.routing.reads.recent import WAIT_S
from proxy.routing.router import READ_ANY, Router, Waiting
from proxy.routing.waiting import Then


def when_applied(router: Router, waiting: Waiting, shards: Collection[int], answer: bytes = b"") -> None:
    """Tell a client's request its answer once the nearest nodes of these shards have applied all that is in
    order now; after some ``WAIT_S`` at most, for a host that is behind still answers. ``then`` looks whether
    the call has ended meanwhile."""
    left, began = set(shards), router.loop.time()

    def ask(method: Method, shard: int, prefix: bytes, answered: Then) -> Waiting:
        asked = Waiting(None, method, b"", shard, READ_ANY, began, WAIT_S, router.quiet)
        return asked.calls(answered, None, prefix)

    def indexed(_: Waiting, status: int, body: bytes) -> None:
        if status != Status.OK:
            waiting.tell(Status.OK, answer)
            return
        order_index, _, _ = READ_INDEX_ANSWER.unpack(body)
        for shard in tuple(left):
            # FACTS are not judged: this front may not have heard yet that there are users
            facts = ask(Method.FACTS, shard, READ.pack(order_index, 0), applied)
            facts.pieces = []  # it ends with the link
            route = router.routes.get(shard)
            link = None if route is None else route.nearest
            if link is None:
                applied(facts, Status.ERROR, b"")
            else:
                router.send(link, facts)

    def applied(asked: Waiting, status: int, body: bytes) -> None:
        left.discard(asked.shard)
        if not left:
            waiting.tell(Status.OK, answer)

    router.read_index.add(ask(Method.READ_INDEX, 0, b"", indexed))

"""Requests of a front that wait, or whose clients or links have gone: what becomes of each.

What has waited too long is found by looking through what is open, every ``router.SWEEP_S``, instead of
having a timer for each; through AT_ONCE requests of a link at a time, the oldest first, so that 50,000 are
told half a second late at most.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from cluster import errors
from cluster.wire.messages import Method
from proxy.routing.waiting import ASK, SERIALIZABLE, WRITE, Waiting

if TYPE_CHECKING:
    from proxy.routing.links import Link
    from proxy.routing.router import Router
    from proxy.routing.routes import ShardRoute

AT_ONCE = 5_000  # some 0.5 ms
# nobody to forward them to, etcd says
_OF_LEASES = frozenset(map(int, (Method.LEASE_KEEPALIVE, Method.LEASE_KEEPALIVES, Method.LEASE_TTL)))


def sweep_link(router: Router, link: Link, route: ShardRoute, now: float) -> None:
    """Requests that were sent to a node."""
    link.farewell()
    pending, unseen = link.pending, link.unseen
    if not unseen:
        unseen = link.unseen = list(reversed(pending))
    seen = unseen[-AT_ONCE:]
    del unseen[-AT_ONCE:]
    late = [
        w for rid in reversed(seen) if (w := pending.get(rid)) is not None
        and (now - w.started > w.limit_s or (w.call is not None and w.call.closed))
    ]
    for waiting in late:
        del link.pending[waiting.rid]
        if waiting.route != WRITE:
            router.post(link, waiting.rid, Method.CANCEL, b"")
        if waiting.call is not None and waiting.call.closed:
            router.gone(waiting)
        elif (
            waiting.route == WRITE
            and route.leader_since - 2 * router.election_s < waiting.started < route.leader_since
        ):
            router.fail(waiting, errors.TIMEOUT_DUE_TO_LEADER_FAIL)
        else:
            router.fail(waiting, errors.TIMEOUT)


def moved_on(router: Router, link: Link) -> None:
    """What was under way on a link that has ended (I23)."""
    pending = tuple(link.pending.values())
    link.pending.clear()
    for waiting in pending:
        if waiting.route == WRITE or waiting.pieces is not None or waiting.method == Method.SNAPSHOT:
            router.fail(waiting, errors.TIMEOUT_DUE_TO_LEADER_FAIL)
        elif waiting.call is not None and waiting.call.closed:
            router.gone(waiting)
        elif waiting.route == ASK:
            router.to_leader(waiting)
        elif waiting.prefix == SERIALIZABLE:
            router.recent.read(waiting)
        else:
            router.to_replica(waiting)


def resume(router: Router, route: ShardRoute) -> None:
    """Send what has waited for a leader, or for a replica, if there is one now."""
    if route.leader_link is not None and route.queue:
        queue, route.queue = route.queue, deque()
        for waiting in queue:
            if waiting.call is not None and waiting.call.closed:
                router.gone(waiting)
            else:
                router.to_leader(waiting)
    if route.replica is not None and route.reads:
        queue, route.reads = route.reads, deque()
        for waiting in queue:
            if waiting.prefix == SERIALIZABLE:
                router.recent.read(waiting)
            else:
                router.to_replica(waiting)
    router.recent.release()


def sweep_queue(router: Router, queue: deque[Waiting], now: float) -> deque[Waiting]:
    """Requests that were not sent anywhere; those that wait on."""
    kept: deque[Waiting] = deque()
    for waiting in queue:
        if waiting.call is not None and waiting.call.closed:
            router.gone(waiting)
        elif now - waiting.started <= waiting.limit_s:
            kept.append(waiting)
        elif waiting.route == WRITE:
            # never reached a leader's log, as etcd says it
            router.fail(waiting, errors.CONTEXT_DEADLINE_EXCEEDED)
        elif waiting.method in _OF_LEASES:
            router.fail(waiting, errors.NO_LEADER)
        else:
            router.fail(waiting, errors.TIMEOUT)
    return kept


def sweep_waiting(router: Router, route: ShardRoute, now: float) -> None:
    """Requests that wait for a leader, or for a replica."""
    # who is told that it failed may ask again at once: that comes behind what is left here
    if route.queue:
        queue, route.queue = route.queue, deque()
        route.queue.extendleft(reversed(sweep_queue(router, queue, now)))
    if route.reads:
        queue, route.reads = route.reads, deque()
        route.reads.extendleft(reversed(sweep_queue(router, queue, now)))

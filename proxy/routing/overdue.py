"""Requests of a front that wait, or whose clients or links have gone: what becomes of each.

A sweep every ``router.SWEEP_S`` looks through AT_ONCE requests of a link, the oldest first: of 50,000 the
last one is found half a second late.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from cluster import errors
from cluster.wire.messages import Method
from proxy.routing.links import Link
from proxy.routing.reads.recent import RecentReads
from proxy.routing.routes import ShardRoute
from proxy.routing.sending import Sending
from proxy.routing.waiting import ASK, SERIALIZABLE, WRITE, Waiting

AT_ONCE = 5_000  # some 0.5 ms
# without a leader to forward them to, in etcd's words
_OF_LEASES = frozenset(map(int, (Method.LEASE_KEEPALIVE, Method.LEASE_KEEPALIVES, Method.LEASE_TTL)))
# by the node that was asked, or by none
_OF_ONE_NODE = frozenset(map(int, (Method.SNAPSHOT, Method.DEFRAGMENT)))
# grow with the store, and a node says nothing until they are done
_HASHES, HASH_LIMIT_S = frozenset(map(int, (Method.HASH, Method.HASH_KV))), 600.0


def sweep_link(router: Sending, link: Link, route: ShardRoute, now: float) -> None:
    link.farewell()
    pending, unseen = link.pending, link.unseen
    if not unseen:
        unseen = link.unseen = list(reversed(pending))
    seen = unseen[-AT_ONCE:]
    del unseen[-AT_ONCE:]
    late = [
        w for rid in reversed(seen) if (w := pending.get(rid)) is not None
        and ((now - w.started > w.limit_s and not _goes_on(w, now))
             or (w.call.closed if w.call is not None else w.left))
    ]
    for waiting in late:
        if waiting.rid not in pending:
            continue  # its read was given up as another part of it failed
        del pending[waiting.rid]
        if waiting.route != WRITE:
            router.post(link, waiting.rid, Method.CANCEL, b"")
        if waiting.left:
            router.gone(waiting)
        elif (
            waiting.route == WRITE
            and route.leader_since - 2 * router.election_s < waiting.started < route.leader_since
        ):
            router.fail(waiting, errors.TIMEOUT_DUE_TO_LEADER_FAIL)
        else:
            router.fail(waiting, errors.TIMEOUT)


def _goes_on(waiting: Waiting, now: float) -> bool:
    """Whether it may take longer than requests do: a hash that a client waits for."""
    return (waiting.method in _HASHES and now - waiting.started <= HASH_LIMIT_S
            and waiting.client is not None and not waiting.client.closed)


def moved_on(
    router: Sending, recent: RecentReads, link: Link, placed_anew: Callable[[Waiting], bool]
) -> None:
    """What was under way on a link that has ended (I23). ``placed_anew``: whether a read, which may have been
    sent by an older table of placement, begins its way again."""
    now = router.loop.time()
    pending = tuple(link.pending.values())
    link.pending.clear()
    for waiting in pending:
        if waiting.route == WRITE or waiting.method in _OF_ONE_NODE or not waiting.begins_anew(now):
            router.fail(waiting, errors.TIMEOUT_DUE_TO_LEADER_FAIL)
        elif waiting.left:
            router.gone(waiting)
        elif waiting.route == ASK:
            router.to_leader(waiting)
        elif placed_anew(waiting):
            pass
        elif waiting.prefix == SERIALIZABLE:
            recent.read(waiting)
        else:
            router.to_replica(waiting)


def resume(router: Sending, recent: RecentReads, route: ShardRoute) -> None:
    """Send what has waited for a leader, or for a replica, if there is one now."""
    if route.leader_link is not None and route.queue:
        queue, route.queue = route.queue, deque()
        for waiting in queue:
            if waiting.left:
                router.gone(waiting)
            else:
                router.to_leader(waiting)
    if route.replica is not None and route.reads:
        queue, route.reads = route.reads, deque()
        for waiting in queue:
            if waiting.prefix == SERIALIZABLE:
                recent.read(waiting)
            else:
                router.to_replica(waiting)
    recent.release()


def sweep_queue(router: Sending, queue: deque[Waiting], now: float) -> deque[Waiting]:
    """Drop what is overdue of requests that were not sent; those that wait on."""
    kept: deque[Waiting] = deque()
    for waiting in queue:
        if waiting.left:
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


def sweep_waiting(router: Sending, route: ShardRoute, now: float) -> None:
    # a client may ask again as soon as it failed: that comes behind what is left here
    if route.queue:
        queue, route.queue = route.queue, deque()
        route.queue.extendleft(reversed(sweep_queue(router, queue, now)))
    if route.reads:
        queue, route.reads = route.reads, deque()
        route.reads.extendleft(reversed(sweep_queue(router, queue, now)))

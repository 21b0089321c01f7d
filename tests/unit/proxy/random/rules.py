"""What must hold once every call is over and every node has answered. Each rule tells what breaks it; its
function's name is the rule's."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cluster import errors
from cluster.faults import faults
from cluster.wire.messages import Method, Status
from tests.unit.proxy.random.run import Run
from tests.unit.proxy.random.world import World

_UNKNOWN = {errors.TIMEOUT.text, errors.TIMEOUT_DUE_TO_LEADER_FAIL.text}


def each_call_counts_once(world: World) -> Iterator[str]:
    for (_, _, method), stats in world.net.context.stats.items():
        handled = stats.ok + sum(stats.codes.values())
        if handled != stats.started:
            yield f"{method}: {stats.started} started, {handled} handled: {stats.ok} OK, {stats.codes}"


def no_write_is_taken_twice(world: World) -> Iterator[str]:
    """I23: one that may be logged is sent nowhere else."""
    for mark, copies in world.nodes.writes.items():
        if sum(copy.taken for copy in copies) > 1:
            yield f"{mark}: {', '.join(map(str, copies))}"


def no_request_waits(world: World) -> Iterator[str]:
    router = world.net.router
    found = router.statistics()
    for what in ("pending", "queued", "large_writes_waiting", "range_compares_waiting"):
        if found[what]:
            yield f"{what}: {found[what]}"
    if router.pieces._coming:
        yield "pieces of answers"
    if router.read_index.waiting or router.read_index._questions:
        yield "a read index"
    if router.recent._behind or router.recent._lacking:
        yield "serializable reads"


def each_share_is_given_back(world: World) -> Iterator[str]:
    in_turn = world.net.router.in_turn
    for what, turns in (("large writes", in_turn.large), ("compares of ranges", in_turn.compares)):
        if turns._under_way or turns._turns.used:
            yield f"{what}: {turns._turns.used}"
    passwords = world.net.context.passwords
    if passwords._jobs or passwords._under_way or passwords._waiting:
        yield "passwords"
    if world.handler("RangeStream")._waiting:
        yield "streams of ranges"
    if world.handler("Snapshot")._making:
        yield "snapshots"


def no_keepalive_stays(world: World) -> Iterator[str]:
    kept = world.handler("LeaseKeepAlive")
    if kept._open or kept._waiting or kept._streams:
        yield f"{kept._open} questions, {len(kept._waiting)} leases, {len(kept._streams)} streams"


def no_watch_stays(world: World) -> Iterator[str]:
    hub = world.net.context.hub
    found = hub.statistics()
    if any(found[what] for what in ("streams", "watches", "subscriptions", "merge_bytes", "held_events")):
        yield f"{found}"
    if any(hub._joining._waiting.values()) or hub.history._under_way or hub.history._turns:
        yield "parts that join"
    if hub._stalled_parts or hub._stalled_cohorts or hub._merging:
        yield "parts that stall"
    if hub._progress._due or hub._ticking or hub._resuming:
        yield "progress"
    if world.net.context.guarded:
        yield "streams that a leader guards"


def no_part_stays_after_its_client(world: World) -> Iterator[str]:
    for route in world.net.router.routes.values():
        for link in route.links.values():
            if link.parts or link.asked:
                yield f"{len(link.parts)} at the link to {link.shard}/{link.member_id}"
        if route.wanted:
            yield f"shard {route.shard} is wanted"
    for node in world.nodes.alive():
        if world.nodes.subscriptions[node]:
            yield f"{len(world.nodes.subscriptions[node])} at node {node.shard}/{node.member}"


def nothing_is_left_at_a_node(world: World) -> Iterator[str]:
    for node in world.nodes.alive():
        yield from map(str, world.nodes.owed[node])


def no_fault_is_met(world: World) -> Iterator[str]:
    yield from map(str, faults.take())


#: Whoever the clients are
OF_ALL: tuple[Callable[[World], Iterator[str]], ...] = (
    each_call_counts_once, no_write_is_taken_twice, no_request_waits, each_share_is_given_back,
    no_keepalive_stays, no_watch_stays, no_part_stays_after_its_client, nothing_is_left_at_a_node,
    no_fault_is_met)


# -- of calls without a connection

def each_call_ends(run: Run) -> Iterator[str]:
    return (call.asked.method for call in run.unanswered)


def each_answer_tells_what_became_of_a_write(run: Run) -> Iterator[str]:
    """OK: a node has done it. An error, where one may have done it: the client hears that nobody knows."""
    for call in run.calls.every:
        if not call.asked.mark or call.status is None or call.left:
            continue
        code, text = call.status
        copies = run.nodes.writes.get(call.asked.mark, [])
        told = f"{call.asked.method} {call.asked.mark}: {call.status}, {', '.join(map(str, copies))}"
        if code == 0 and not any(copy.status == Status.OK for copy in copies):
            yield told
        if code and any(copy.done for copy in copies) and text not in _UNKNOWN:
            yield told


def nothing_is_kept_for_who_has_gone(run: Run) -> Iterator[str]:
    return (f"{Method(waiting.method).name} to shard {waiting.shard}" for waiting in run.kept_for_nobody)


OF_CALLS: tuple[Callable[[Run], Iterator[str]], ...] = (
    each_call_ends, each_answer_tells_what_became_of_a_write, nothing_is_kept_for_who_has_gone)


def broken_of_all(world: World) -> list[str]:
    """The rules that do not hold, each with what breaks it."""
    return [f"{rule.__name__}: {found}" for rule in OF_ALL for found in rule(world)]


def broken(run: Run) -> list[str]:
    return [*broken_of_all(run), *(f"{rule.__name__}: {found}" for rule in OF_CALLS for found in rule(run))]

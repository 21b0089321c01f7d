"""The rules that a lone put on another shard rests on (decision 22), taken out one at a time where such puts
are nearly all there is. As ``order_mutants``, where most of them are shown for transactions over several
shards."""

from __future__ import annotations

from typing import Any

import pytest

import proxy.routing.router
from cluster.evaluate.footprint import Footprint
from cluster.order.leading.attempts import Attempts
from cluster.order.prepare import Prepare
from cluster.wire.messages import LEADER, LONE_HEAD, Method, Status
from node.replica.shards.order_role import OrderRole
from node.replica.writes import Writes
from tests.sim.mutants.mutant import CHANGES, SEQUENCERS, WRONG, Mutant, plan
from tests.sim.mutants.order_mutants import terms_are_not_checked
from tests.sim.mutants.order_mutants_locks import leases_of_puts_are_not_locked, locks_outlive_their_sequencer

Patch = pytest.MonkeyPatch
# nothing that spans shards: what the sequencer coordinates is lone
LONE = {"put": 12, "delete": 3, "txn": 4, "range": 2}


def lone(**given: Any) -> Any:
    """Every put that finds nothing under way is sent to the sequencer; a few clients at each of three fronts
    are enough for others to take the leader's way meanwhile."""
    return plan(**{"mix": LONE, "lone_after": 0, "clients": 8, **given})


def _alone(prepare: Prepare) -> bool:
    return len(prepare.touches) == 1 and prepare.touches[0].write and not prepare.leases


def lone_puts_lock_nothing(patch: Patch) -> None:
    """I9: the put's key is locked at its leader until the multi is applied there."""
    wanted = Attempts._wanted
    patch.setattr(Attempts, "_wanted",
                  lambda self, prepare: Footprint() if _alone(prepare) else wanted(self, prepare))


def lone_puts_see_what_is_applied_only(patch: Patch) -> None:
    """H1: the leader answers when everything that it had logged is applied: the key's version may be on its
    way."""
    lock = Attempts._lock

    def at_once(self: Any, held: Any, begun: int) -> None:
        lock(self, held, begun)
        if _alone(held.payload.prepare):
            held.payload.batch = 0

    patch.setattr(Attempts, "_lock", at_once)


def a_lone_put_rests_on_any_leaders_word(patch: Patch) -> None:
    """I10: it is appended only while its shard's term is the latest in order."""
    terms_are_not_checked(patch)


def a_lone_puts_lock_outlives_its_sequencer(patch: Patch) -> None:
    """I11: a record of the next sequencer's term ends it."""
    locks_outlive_their_sequencer(patch)


def a_lone_puts_lease_is_not_locked(patch: Patch) -> None:
    """I15: a revoke waits for the multi of a put that names the lease."""
    leases_of_puts_are_not_locked(patch)


def lone_puts_go_to_their_leader_when_their_link_breaks(patch: Patch) -> None:
    """I23: the sequencer may have logged it; nobody sends it again."""
    down = proxy.routing.router.Router.link_down

    def resend(self: Any, link: Any, reason: str) -> None:
        mine = [rid for rid, w in link.pending.items() if w.method == Method.LONE]
        waiting = [link.pending.pop(rid) for rid in mine]
        down(self, link, reason)
        for w in waiting:
            (w.shard,) = LONE_HEAD.unpack_from(w.body)
            w.method, w.body, w.rid = Method.PUT, w.body[LONE_HEAD.size :], 0
            if not w.call.closed:
                self.to_leader(w)

    patch.setattr(proxy.routing.router.Router, "link_down", resend)


def the_sequencer_sends_on_what_it_takes(patch: Patch) -> None:
    """I23: a put that is sent back to its leader is not coordinated as well."""
    lone_ = OrderRole._lone

    def both(self: Any, link: Any, rid: int, timeout_ms: int, body: bytes, who: Any = None) -> None:
        coordinator = self.coordinator
        lone_(self, link, rid, timeout_ms, body, who)
        (shard,), request = LONE_HEAD.unpack_from(body), body[LONE_HEAD.size :]
        if coordinator is not None and not coordinator.free_for(Method.PUT, request, shard):
            link.answer(rid, Status.ELSEWHERE, LEADER.pack(0, 0))
            self.node.mark_dirty(link)
            coordinator.submit(None, Method.PUT, request)

    patch.setattr(OrderRole, "_lone", both)


def a_deposed_sequencer_disowns_what_it_logged(patch: Patch) -> None:
    """Lost term: what it logged may stand in its successor's log; only what is not logged is sent back."""
    resign = Writes.resign

    def all_(self: Any) -> None:
        resign(self)
        for own in self._under_way.entries:
            for link, rid in own.owed:
                self._not_leader(link, rid)

    patch.setattr(Writes, "resign", all_)


MUTANTS = [
    Mutant(lone_puts_lock_nothing, WRONG, lone(fault_every_s=9.0)),
    Mutant(lone_puts_see_what_is_applied_only, WRONG, lone(fault_every_s=9.0)),
    Mutant(
        a_lone_put_rests_on_any_leaders_word,
        ("I10", *WRONG),
        lone(
            faults=("pause leader", "transfer", "transfer", "transfer"),
            fault_every_s=0.05,
            busy_s=0.005,
            shards=3,
        ),
    ),
    Mutant(
        a_lone_puts_lock_outlives_its_sequencer,
        ("I23 every wait", "liveness"),
        lone(
            faults=("kill sequencer", "restart", "pause sequencer"), fault_every_s=0.1, busy_s=0.02, shards=3
        ),
        first=23,
    ),
    Mutant(
        a_lone_puts_lease_is_not_locked,
        ("I15", "I22 a put continues its key", "I22 a delete finds its key"),
        lone(mix={"lease_put": 12, "grant": 4, "revoke": 6}, fault_every_s=9.0),
    ),
    Mutant(
        lone_puts_go_to_their_leader_when_their_link_breaks,
        ("I23", *WRONG),
        lone(faults=("break", "isolate", "heal", "pause sequencer"), patience=1.0),
        first=81,
    ),
    Mutant(the_sequencer_sends_on_what_it_takes, ("I23", *WRONG), lone(fault_every_s=9.0)),
    Mutant(
        a_deposed_sequencer_disowns_what_it_logged,
        ("I23", *WRONG),
        lone(faults=(*SEQUENCERS, "transfer"), fault_every_s=0.2, patience=1.0),
        first=13,
    ),
]
SCENARIOS = {
    "crashes": ("kill sequencer", "kill leader", "kill node", "kill host", "restart", "restart", "restart"),
    "pauses": ("pause sequencer", "pause leader", "pause leader", "pause front", "transfer"),
    "partitions": ("isolate", "one way", "cut pair", "cut sequencer", "heal", "heal", "heal", "break"),
    "changes": CHANGES,
}

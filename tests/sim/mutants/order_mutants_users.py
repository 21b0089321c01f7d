"""Rules of who may what taken out, one at a time, as ``order_mutants``: plans of ``test_order_users``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

import cluster.features.auth.judge
import cluster.order.sequencing.coordinator
import cluster.order.sequencing.wide
import node.replica.shards.order_role
import node.replica.writes
import proxy.shared.context
from cluster.evaluate.feature_table import EVERYWHERE
from cluster.evaluate.replica import Leader
from cluster.evaluate.view import Outcome
from cluster.features.auth.principal import SAID, Kind, Principal, split
from cluster.features.auth.state import AuthState
from cluster.order.leading.rights import Rights
from cluster.order.sequencing.coordinator import Wide
from cluster.order.sequencing.sequencer import Sequencer
from cluster.wire.messages import READ, Method, Status
from node.replica.shards.order_role import OrderRole
from node.serving.auth.admission import Admission
from node.serving.auth.guard import Guard
from tests.sim.mutants.order_mutants_disks import SNAPSHOTS
from tests.sim.world.order_plan import Plan

Patch = pytest.MonkeyPatch
ASKED, REFUSED, EFFECT, EQUAL = "P1", "P2", "P3", "P4"
GRANTED = "I15 a lease is granted once"
MISSED = "I22 no lease is missing that is there"


def with_leases(plan: Plan) -> Plan:
    """Few IDs of leases, which are granted and revoked all the time by whoever may, and may not."""
    mix = {**(plan.mix or {}), "lease_put": 8, "grant": 12, "revoke": 12}
    return replace(plan, mix=mix, lease_ids=3, lease_keys=0)


class Mutant(NamedTuple):
    """A rule that is taken out, where, and by what that is noticed."""

    remove: Callable[[Patch], None]
    shards: int
    rules: tuple[str, ...]
    faults: tuple[str, ...] = ()  # other ones than in the plan, and more of them
    first: int = 0  # seed
    leases: bool = False  # IDs of leases are granted again and again

    def plan(self, plan: Plan) -> Plan:
        """What hurts soon, made of a plan of all."""
        if self.leases:
            plan = with_leases(plan)
        if not self.faults:
            return plan
        return replace(plan, faults=self.faults, fault_every_s=0.2, snapshot_count=20)

    def __str__(self) -> str:
        return f"{self.remove.__name__} at {self.shards}"


def _nobody_is_judged(*_: object) -> None:
    """Everybody may."""


def _anybody_may(patch: Patch, method: Method) -> None:
    patch.setitem(cluster.features.auth.judge._NEEDS, method, (bytes, _nobody_is_judged))


def _judges_otherwise(patch: Patch, name: str, judged: Callable[[Any, Any], None]) -> None:
    """Put ``judged`` in the place of a function of the table, nested calls included."""
    judge = cluster.features.auth.judge
    real = getattr(judge, name)
    patch.setattr(judge, name, judged)
    for method, (parse, needs) in judge._NEEDS.items():
        if needs is real:
            patch.setitem(judge._NEEDS, method, (parse, judged))


def writes_of_shard_0_are_not_judged(patch: Patch) -> None:
    patch.setattr(node.replica.writes, "judge", _nobody_is_judged)


def writes_of_other_shards_are_not_judged(patch: Patch) -> None:
    patch.setattr(Rights, "judge", _nobody_is_judged)


def writes_over_shards_are_not_judged(patch: Patch) -> None:
    writes_over_shards_are_judged_ahead_only(patch)
    patch.setattr(cluster.order.sequencing.wide, "judge_ahead", _nobody_is_judged)


def writes_over_shards_are_judged_ahead_only(patch: Patch) -> None:
    """Rights may change until their locks are granted, and only then it is known what hangs on leases."""
    patch.setattr(cluster.order.sequencing.coordinator, "judge", _nobody_is_judged)


def what_has_no_name_is_not_judged(patch: Patch) -> None:
    """A request that came before users were enabled, as far as was applied then."""

    judge = node.replica.writes.judge
    nobody = node.replica.writes.NOBODY
    patch.setattr(
        node.replica.writes, "judge", lambda state, who, *rest: who is nobody or judge(state, who, *rest)
    )


def ranges_are_not_judged(patch: Patch) -> None:
    _anybody_may(patch, Method.RANGE)


def serializable_ranges_are_not_judged(patch: Patch) -> None:
    take = Admission.take

    def lets_pass(self: Any, link: Any, rid: int, method: int, timeout_ms: int, body: bytes) -> bool:
        if method == Method.RANGE | SAID and READ.unpack_from(split(body)[1])[0] == 0:
            self._node.reads.submit(
                link, rid, timeout_ms, split(body)[1], self._node.serve.reading(Method.RANGE)
            )
            return True
        return take(self, link, rid, method, timeout_ms, body)

    patch.setattr(Admission, "take", lets_pass)


def only_one_branch_is_judged(patch: Patch) -> None:
    """What is not done tells by its verdict what it would have seen."""
    judge_txn = cluster.features.auth.judge._txn

    def first(asked: Any, request: Any) -> None:
        del request.failure[:]
        judge_txn(asked, request)

    _judges_otherwise(patch, "_txn", first)


def compares_are_not_judged(patch: Patch) -> None:
    judge_txn = cluster.features.auth.judge._txn

    def writes(asked: Any, request: Any) -> None:
        del request.compare[:]
        judge_txn(asked, request)

    _judges_otherwise(patch, "_txn", writes)


def revokes_are_not_judged(patch: Patch) -> None:
    """With a lease go its keys."""
    _anybody_may(patch, Method.LEASE_REVOKE)


def keep_alives_are_not_judged(patch: Patch) -> None:
    _anybody_may(patch, Method.LEASE_KEEPALIVE)


def leases_without_keys_are_anybodys(patch: Patch) -> None:
    """Also theirs who have no name."""
    patch.setattr(cluster.features.auth.judge._Asked, "named", lambda self: None)


def puts_under_leases_are_puts(patch: Patch) -> None:
    """Who writes under a lease may make its other keys live, or go."""
    judge_put = cluster.features.auth.judge._put

    def plain(asked: Any, request: Any) -> None:
        request.lease = 0
        judge_put(asked, request)

    _judges_otherwise(patch, "_put", plain)


def a_refused_revoke_revokes_until_it_is_applied(patch: Patch) -> None:
    """A lease is granted anew only behind a revoke that is logged."""
    append = Sequencer._append

    def revokes(self: Any, item: bytes, outcome: Outcome, wide: Wide[Any]) -> None:
        append(self, item, outcome, wide)
        for lease in () if item else wide.leases:
            self.tail.leader.set_lease(lease, False)

    patch.setattr(Sequencer, "_append", revokes)
    patch.setattr(Leader, "logs_end_of", lambda self, lease: True)


def keys_of_other_shards_are_not_looked_at(patch: Patch) -> None:
    """The sequencer judges a put under a lease by the keys of shard 0."""
    patch.setattr(
        cluster.order.sequencing.coordinator, "leases_looked_at", lambda wide, users: wide.leases)


def void_tokens_count(patch: Patch) -> None:
    """A simple token is no older than its user's password, and the last disabling."""
    checked = cluster.features.auth.judge._checked

    def whatever(state: AuthState, who: Principal) -> Principal:
        return who if who.kind == Kind.SIMPLE else checked(state, who)

    patch.setattr(cluster.features.auth.judge, "_checked", whatever)


def old_revisions_count(patch: Patch) -> None:
    """A JSON web token names the auth revision that there is."""
    patch.setattr(cluster.features.auth.judge._Asked, "fresh", lambda self: None)


def a_start_forgets_users(patch: Patch) -> None:
    init = Guard.__init__

    def empty(self: Any, *given: Any) -> None:
        init(self, *given)
        self.state = AuthState()

    patch.setattr(Guard, "__init__", empty)


def an_install_brings_no_users(patch: Patch) -> None:
    patch.setattr(Guard, "replaced", lambda self: None)


def changes_are_acknowledged_by_shard_0(patch: Patch) -> None:
    """I20: a change of users is acknowledged once every shard's leader has applied it."""
    others = EVERYWHERE - {Method.AUTH_CHANGE}
    patch.setattr(node.replica.writes, "EVERYWHERE", others)
    patch.setattr(node.replica.shards.order_role, "EVERYWHERE", others)


def what_was_let_pass_comes_whenever(patch: Patch) -> None:
    """And once what was evaluated there before is in order. Nearly all of it is when a front has waited for
    its own replicas, half a second at most: without that wait 17 of 40 runs notice, with it 4 of 60."""

    def at_once(router: Any, waiting: Any, shards: Any, answer: bytes = b"") -> None:
        waiting.tell(Status.OK, answer)

    patch.setattr(Rights, "_counts", lambda self, ordered, order_index: order_index)
    patch.setattr(proxy.shared.context, "when_applied", at_once)


def refusals_do_not_wait(patch: Patch) -> None:
    """I7: a refusal may rest on what is logged, and lost."""
    wide = OrderRole.wide

    def at_once(
        self: Any, link: Any, rid: int, method: int, timeout_ms: int, body: bytes, who: Any = None
    ) -> None:
        leader = self.writes.leader
        if leader is not None and who is not None:
            try:
                cluster.features.auth.judge.judge(leader.auth, who, method, body, leader.view)
            except node.replica.shards.order_role.EtcdError as error:
                self.node.reads.refuse(link, rid, error)
                return
        wide(self, link, rid, method, timeout_ms, body, who)

    patch.setattr(OrderRole, "wide", at_once)


MUTANTS = [
    Mutant(writes_of_shard_0_are_not_judged, 1, (ASKED, EFFECT)),
    Mutant(writes_of_other_shards_are_not_judged, 3, (ASKED, EFFECT)),
    Mutant(writes_over_shards_are_not_judged, 3, (ASKED, EFFECT)),
    Mutant(writes_over_shards_are_judged_ahead_only, 3, (ASKED, EFFECT)),
    Mutant(what_has_no_name_is_not_judged, 1, (ASKED, EFFECT), first=8),
    Mutant(ranges_are_not_judged, 1, (ASKED,)),
    Mutant(serializable_ranges_are_not_judged, 1, (ASKED,)),
    Mutant(only_one_branch_is_judged, 1, (ASKED, EFFECT), first=2),
    Mutant(compares_are_not_judged, 1, (ASKED, EFFECT), first=5),
    Mutant(revokes_are_not_judged, 1, (ASKED, EFFECT), first=2),
    Mutant(revokes_are_not_judged, 3, (ASKED, EFFECT), first=6),
    Mutant(keep_alives_are_not_judged, 1, (ASKED,)),
    Mutant(leases_without_keys_are_anybodys, 1, (ASKED,), first=5),
    Mutant(puts_under_leases_are_puts, 1, (ASKED, EFFECT), first=39),
    Mutant(keys_of_other_shards_are_not_looked_at, 3, (ASKED, EFFECT), first=76),
    Mutant(a_refused_revoke_revokes_until_it_is_applied, 3, (GRANTED, MISSED), first=2, leases=True),
    Mutant(void_tokens_count, 1, (ASKED, EFFECT)),
    Mutant(old_revisions_count, 1, (ASKED, EFFECT)),
    Mutant(a_start_forgets_users, 1, (ASKED, REFUSED, EFFECT, EQUAL), SNAPSHOTS, first=3),
    Mutant(an_install_brings_no_users, 3, (ASKED, EFFECT, REFUSED, EQUAL), SNAPSHOTS, first=2),
    Mutant(changes_are_acknowledged_by_shard_0, 3, (ASKED, EFFECT, REFUSED)),
    Mutant(what_was_let_pass_comes_whenever, 3, (EFFECT,)),
    Mutant(refusals_do_not_wait, 3, (REFUSED,), first=3),
]

"""Rules taken out of the store, one at a time: what each patch removes, and in which plan that hurts soon."""

from __future__ import annotations

from typing import Any

import cluster.order.leading.shard_leader
import cluster.order.sequencing.coordinator
import node.replica.opening
import node.replica.shards.fates
import node.replica.shards.order_role
import node.replica.shards.shard_role
import node.serving.confirm
import proxy.routing.router
import proxy.spanning.gather
from cluster.features.lessor import Lessor
from cluster.order import log as order
from cluster.order.leading.attempts import Attempts
from cluster.order.leading.pending import PendingOverlay
from cluster.order.leading.shard_leader import ShardLeader
from cluster.order.prepare import encode_attempt
from cluster.order.sequencing.coordinator import Coordinator
from cluster.order.sequencing.reports import Reports
from cluster.raft import Role
from cluster.wire.messages import Method
from proxy.watch.subscription import Subscription
from tests.sim.mutants.mutant import HOT, LEASES, SEQUENCERS, WIDE, WRONG, Mutant, Patch, plan

# -- a shard's leader


def serves_when_elected(patch: Patch) -> None:
    """I8: evaluates nothing before a cut of its own term is applied."""
    init = ShardLeader.__init__

    def early(self: Any, *args: Any, **named: Any) -> None:
        init(self, *args, **named)
        self.serve()

    patch.setattr(ShardLeader, "__init__", early)


def applies_by_index_alone(patch: Patch) -> None:
    """H3: a cut is applied only where the own entry at its index has its term (committed entries have)."""
    follow = node.replica.shards.shard_role.ShardRole._follow

    class Longer:
        def __init__(self, raft: Any) -> None:
            self._raft = raft

        def __getattr__(self, name: str) -> Any:
            return getattr(self._raft, "last_index" if name == "announced_index" else name)

    def eager(self: Any) -> None:
        raft, self.raft = self.raft, Longer(self.raft)
        try:
            follow(self)
        finally:
            self.raft = raft

    patch.setattr(node.replica.shards.shard_role.ShardRole, "_follow", eager)


def answers_when_logged(patch: Patch) -> None:
    """I7: a write is answered once it is in order and applied."""
    logged = ShardLeader.logged

    def early(self: Any, index: int) -> None:
        batch = self._open
        logged(self, index)
        batch.mix()
        known = [reply for reply in batch.replies if reply.late is None]
        self._answers += [reply.bind(self._store.revision, self.term, batch.shown) for reply in known]
        batch.replies = [r for r in batch.replies if r.late is not None]

    patch.setattr(ShardLeader, "logged", early)


def compares_pending_revisions(patch: Patch) -> None:
    """D6: what a pending revision leaves open waits for it."""
    patch.setattr(cluster.order.leading.shard_leader, "check_undecidable", lambda view, request: None)
    patch.setattr(cluster.order.leading.shard_leader, "check_plain", lambda view, plain: True)


def says_no_lease_by_itself(patch: Patch) -> None:
    """Negative knowledge: a no on a lease may come from lagging knowledge."""
    patch.setattr(PendingOverlay, "lease_exists", lambda self, lease: self._store.lease(lease) is not None)


def judges_fates_by_index(patch: Patch) -> None:
    """Lost term: done only if the entry at that index has the term."""

    def decide(self: Any, cut: Any, before: dict[int, int]) -> None:
        for own in list(self._open.entries):
            if own.index in before:
                for (link, rid), status, body in own.answers(before[own.index], own.term):
                    link.answer(rid, status, body)
                    self._node.mark_dirty(link)
                self._open.entries.remove(own)

    patch.setattr(node.replica.shards.fates.Fates, "decide", decide)


# -- the sequencer


def terms_are_not_checked(patch: Patch) -> None:
    """C2, I10: a multi is appended only while the terms of its grants are the latest in order."""
    complete = Coordinator._complete

    class Believing:
        """A fold in which every participant still has the term of its grant."""

        def __init__(self, fold: Any, grants: Any) -> None:
            self._fold = fold
            self._grants = grants

        def cut(self, shard: int) -> Any:
            return (
                order.Cut(term=self._grants[shard].term) if shard in self._grants else self._fold.cut(shard)
            )

        def __getattr__(self, name: str) -> Any:
            return getattr(self._fold, name)

    def careless(self: Any, wide: Any, append: Any) -> None:
        fold, self.fold = self.fold, Believing(self.fold, wide.grants)
        try:
            complete(self, wide, append)
        finally:
            self.fold = fold

    patch.setattr(Coordinator, "_complete", careless)


def attempts_keep_their_id(patch: Patch) -> None:
    """H5: every attempt has a fresh id (else a late release frees the next attempt's lock)."""
    start = Coordinator._start

    def again(self: Any, wide: Any, now_ms: int) -> bool:
        number, first = self._number, getattr(wide, "sent_ms", 0)
        del first
        mine = self.__dict__.setdefault("ids", {}).get(id(wide))
        if mine is not None:
            self._number = mine - 1
        started = bool(start(self, wide, now_ms))
        if started:
            self.ids[id(wide)] = wide.attempt.number
            self.keep = [*self.__dict__.get("keep", []), wide]
        self._number = max(number, self._number)
        return started

    def release(self: Any, attempt: Any) -> bool:
        held = self._table.find(attempt)
        if held is not None:
            self._table.unlock(held)
        return held is not None

    patch.setattr(Coordinator, "_start", again)
    patch.setattr(Attempts, "release", release)  # an ended id is locked again


def locks_are_let_go_at_once(patch: Patch) -> None:
    """Hole 3: a lock whose multi is appended ends when that is applied."""
    tick = node.replica.shards.shard_role.ShardRole.finish

    def ask(self: Any) -> None:  # without waiting for long, as if the locks had been held
        tick(self)
        feed = self.feed.link
        if self.leading is not None and feed is not None and feed.leader:
            for attempt in self.leading.undecided():
                link = self.links.get(feed.leader, 0)
                link.request(Method.QUERY, encode_attempt(attempt), self._fate(attempt))

    patch.setattr(node.replica.shards.shard_role.ShardRole, "finish", ask)
    patch.setattr(Coordinator, "fate", lambda self, attempt: None if attempt in self._running else 0)


def revokes_lock_one_shard(patch: Patch) -> None:
    """H6: all shards take part in a revoke."""
    patch.setattr(
        cluster.order.sequencing.coordinator, "in_all_shards",
        lambda touches, placement: touches or {1: []})


def cuts_anything_reported(patch: Patch) -> None:
    """I4: a cut never goes back."""

    def cut(self: Any, fold: Any) -> Any:
        self.uncut = False
        cuts = {s: order.Cut(r.index, r.term, r.count) for s, r in self.by_shard.items()
                if r.index != fold.cut(s).index}
        return cuts, {s: c.count - fold.cut(s).count for s, c in cuts.items()}

    def take(self: Any, report: Any, member_id: int) -> None:
        self.by_shard[report.shard] = report
        self.reporters[report.shard] = member_id
        self.uncut = True

    patch.setattr(Reports, "cut", cut)
    patch.setattr(Reports, "take", take)


def reports_what_is_logged(patch: Patch) -> None:
    """I3: only committed entries are reported."""
    report = ShardLeader.report
    patch.setattr(ShardLeader, "report", lambda self, commit: report(self, 1 << 60))


def sequencer_serves_when_elected(patch: Patch) -> None:
    """H15, I8: the sequencer folds its whole log's tail before it evaluates: it waits for its own first
    record."""
    changed = node.replica.shards.order_role.OrderRole.leader_changed

    def early(self: Any) -> None:
        changed(self)
        if self.writes.leader is None and self.raft.role is Role.LEADER:
            self.node.consequences.lead()
            self._sequence(self.writes.leader)

    patch.setattr(node.replica.shards.order_role.OrderRole, "leader_changed", early)


def leads_while_nobody_answers(patch: Patch) -> None:
    """A leader that hears from nobody steps down; that hides nearly every wrong answer of a deposed one."""
    config = node.replica.opening.Config
    patch.setattr(node.replica.opening, "Config", lambda **given: config(**given, check_quorum=False))


def index_without_a_round(patch: Patch) -> None:
    """H2, I13: a read index is confirmed by a quorum asked after the question."""

    def run(self: Any, serving: bool) -> None:
        if self._questions and serving:
            questions, self._questions = self._questions, []
            self._answer(questions, 0)

    patch.setattr(node.serving.confirm.Confirmations, "run", run)
    leads_while_nobody_answers(patch)


def keeps_alive_without_a_round(patch: Patch) -> None:
    """H7: a keep-alive is answered after a confirmation."""
    ask = node.serving.confirm.Confirmations.ask

    def at_once(self: Any, link: Any, rid: int, method: int, body: bytes) -> None:
        if method in (Method.LEASE_KEEPALIVE, Method.LEASE_KEEPALIVES) and self._lessor.primary:
            self._answer([(link, rid, method, body)], 0)
        else:
            ask(self, link, rid, method, body)

    patch.setattr(node.serving.confirm.Confirmations, "ask", at_once)
    leads_while_nobody_answers(patch)


def leases_get_no_time_at_a_new_sequencer(patch: Patch) -> None:
    """H7: a new sequencer gives every lease its full time."""
    promote = Lessor.promote

    def short(self: Any, now_ms: int, election_timeout_ms: int | None = None) -> None:
        promote(self, now_ms - 800, 0)

    patch.setattr(Lessor, "promote", short)


# -- fronts


def sends_whatever_any_shard_has(patch: Patch) -> None:
    """I16: a revision is sent when every shard of the range has brought everything up to it."""
    advance = Subscription.advance

    def eager(self: Any) -> bool:
        parts = self.parts

        class Ahead:
            def __iter__(self) -> Any:
                return iter([max(parts, key=lambda p: p.through())])

        self.parts = Ahead()
        try:
            return advance(self)
        finally:
            self.parts = parts

    patch.setattr(Subscription, "advance", eager)


def writes_are_sent_again(patch: Patch) -> None:
    """I23: a write whose link broke is not sent again."""
    down = proxy.routing.router.Router.link_down

    def resend(self: Any, link: Any, reason: str) -> None:
        writes = {
            rid: w
            for rid, w in link.pending.items()
            if w.route == proxy.routing.router.WRITE and w.call is not None
        }
        for rid in writes:
            del link.pending[rid]
        down(self, link, reason)
        for w in writes.values():
            w.rid = 0  # else the router itself notices
            if not w.call.closed:
                self.to_leader(w)

    patch.setattr(proxy.routing.router.Router, "link_down", resend)


def broken_links_tell_nobody(patch: Patch) -> None:
    """I23: whoever waits at a link that breaks is told that his request's fate is unknown."""
    down = proxy.routing.router.Router.link_down

    def silent(self: Any, link: Any, reason: str) -> None:
        for rid in [rid for rid, w in link.pending.items() if w.route == proxy.routing.router.WRITE]:
            del link.pending[rid]
        down(self, link, reason)

    patch.setattr(proxy.routing.router.Router, "link_down", silent)


def range_mixes_revisions(patch: Patch) -> None:
    """H17, I14: several shards answer at one revision."""
    gather = proxy.spanning.gather.Gather
    read = gather._read

    def latest(self: Any, order_index: int, revision: int, term: int) -> None:
        real, proxy.spanning.gather.READ = proxy.spanning.gather.READ, _LatestRead()
        try:
            read(self, order_index, revision, term)
        finally:
            proxy.spanning.gather.READ = real

    patch.setattr(gather, "_read", latest)


class _LatestRead:
    def pack(self, order_index: int, revision: int) -> bytes:
        from cluster.wire.messages import READ

        return READ.pack(order_index, 0)


MUTANTS = [
    Mutant(serves_when_elected, (*WRONG, "I6", "I3", "I8"), plan()),
    Mutant(applies_by_index_alone, ("H10", "I6", "I19", "I3", *WRONG), plan(), first=28),
    Mutant(answers_when_logged, WRONG, plan()),
    Mutant(
        compares_pending_revisions,
        WRONG,
        plan(mix={"put": 6, "txn": 20}, busy_s=0.01, fault_every_s=9.0),
        first=30,
    ),
    Mutant(
        says_no_lease_by_itself,
        ("I22 no lease", "I15"),
        plan(mix={"grant": 10, "lease_put": 20}, busy_s=0.02, think_s=0.001, fault_every_s=9.0),
        first=1,
    ),
    Mutant(
        judges_fates_by_index,
        ("I23", *WRONG),
        plan(
            faults=("isolate", "heal", "heal", "heal"),
            mix={"put": 1},
            clients=12,
            fault_every_s=0.3,
            patience=1.0,
        ),
        first=86,
    ),
    Mutant(
        terms_are_not_checked,
        ("I10", *WRONG),
        plan(
            mix=WIDE,
            faults=("pause leader", "transfer", "transfer", "transfer"),
            fault_every_s=0.05,
            busy_s=0.005,
            shards=3,
        ),
        first=17,
    ),
    Mutant(attempts_keep_their_id, (*WRONG, "I23", "liveness", "H5"), plan(shards=3, repeats=0.5), first=10),
    Mutant(locks_are_let_go_at_once, ("I11", *WRONG), plan(mix=HOT, faults=("break",), fault_every_s=1.0)),
    Mutant(revokes_lock_one_shard, ("I15", "I22"), plan(shards=3, mix=LEASES)),
    Mutant(cuts_anything_reported, ("I4",), plan(repeats=0.4)),
    Mutant(
        reports_what_is_logged,
        ("I3", "I19", "I6", "I4", *WRONG),
        plan(late=0.2, faults=("kill leader", "restart", "late"), fault_every_s=0.1, mix={"put": 1}),
    ),
    Mutant(
        sequencer_serves_when_elected, (*WRONG, "I3", "I4", "I8", "I10"), plan(faults=SEQUENCERS), first=4
    ),
    Mutant(
        index_without_a_round,
        ("I13", "I14", "I22 real time", "I24"),
        plan(faults=("isolate", "isolate", "heal"), fault_every_s=0.5, clients=12),
        first=13,
    ),
    Mutant(
        keeps_alive_without_a_round,
        ("H7", "I22 a lease"),
        plan(
            mix={"grant": 4, "keep": 20, "put": 4},
            faults=("isolate", "isolate", "heal"),
            fault_every_s=0.5,
            seconds=5.0,
        ),
        first=8,
    ),
    Mutant(
        leases_get_no_time_at_a_new_sequencer,
        ("H7",),
        plan(mix={"grant": 4, "keep": 20, "put": 4}, faults=SEQUENCERS, seconds=5.0),
    ),
    Mutant(sends_whatever_any_shard_has, ("I16",), plan(mix={**HOT, "watch": 2})),
    Mutant(writes_are_sent_again, ("I23", *WRONG), plan()),
    Mutant(broken_links_tell_nobody, ("I23 every wait",), plan()),
    Mutant(range_mixes_revisions, WRONG, plan(mix={**HOT, "range": 20})),
]

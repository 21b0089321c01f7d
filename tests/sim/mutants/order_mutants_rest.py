"""More rules taken out, one at a time: what is acknowledged when, whose word ends with a term, what a front
shows. As ``order_mutants``."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import proxy.routing.reads.read_index
import proxy.routing.router
import proxy.spanning.gather
import proxy.watch.parts
from cluster import errors
from cluster.effects import records
from cluster.effects.records import Item
from cluster.errors import EtcdError
from cluster.evaluate.replica import Leader
from cluster.evaluate.txns.plain_txn import GET, Plain
from cluster.evaluate.view import Outcome
from cluster.order.leading import shard_leader
from cluster.order.leading.attempts import Attempts
from cluster.order.leading.bound import Bound
from cluster.order.leading.pending import PendingOverlay
from cluster.order.leading.shard_batch import Reply
from cluster.order.leading.shard_leader import ShardLeader
from cluster.order.log import Attempt, Multi, encode_multi
from cluster.order.sequencing.coordinator import Coordinator
from cluster.order.sequencing.evaluator import Evaluator
from cluster.order.sequencing.parts import parts_of
from cluster.order.sequencing.reports import Reports
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method
from node.replica.shards.controls import ControlWaits
from node.replica.shards.order_role import OrderRole
from node.replica.shards.shard_role import ShardRole
from node.replica.writes import Writes
from tests.sim.clients.order_clients import Clients
from tests.sim.mutants.mutant import CHANGES, HOT, SEQUENCERS, WIDE, WRONG, Mutant, Patch, plan
from tests.sim.mutants.order_mutants import _LatestRead

# -- acknowledgements of control records (H11, I20)


def acknowledges_controls_at_once(patch: Patch) -> None:
    """H11, I20: a compaction is acknowledged once every shard's leader has applied it."""
    patch.setattr(Reports, "applied_by", lambda self, shard, fold: 1 << 60)


def physical_compactions_wait_for_shard_0_only(patch: Patch) -> None:
    """I20: a compaction that waits until old data is gone waits for every leader, too."""
    acknowledge = ControlWaits.acknowledge
    patch.setattr(
        ControlWaits, "acknowledge",
        lambda self, link, record, tell: tell(link, record) if tell.__name__ == "answer_when_done"
        else acknowledge(self, link, record, tell),
    )


# -- what a term decided ends with it


def expiries_outlive_their_term(patch: Patch) -> None:
    """H7: an expiry is appended in the term that decided it; here the next sequencer is given it, as etcd
    once did."""
    waiting: list[int] = []
    resign, run = Coordinator.resign, OrderRole.evaluate

    def keep(self: Any) -> Any:
        for wide in (*self._queue, *self._running.values()):
            if wide.token is None:
                waiting.extend(wide.leases)
        return resign(self)

    def forward(self: Any) -> None:
        if waiting and self.coordinator is not None:
            self.coordinator.submit(None, Method.LEASE_REVOKE, b"", [*waiting])
            waiting.clear()
        run(self)

    patch.setattr(Coordinator, "resign", keep)
    patch.setattr(OrderRole, "evaluate", forward)


def the_sequencer_judges_fates_by_index(patch: Patch) -> None:
    """Lost term: a logged write is done only if the entry at its index has its term."""
    applied = Writes.applied

    def believe(self: Any, index: int, term: int) -> None:
        for own in self._under_way.entries:
            if own.index == index:
                own.term = term
        applied(self, index, term)

    patch.setattr(Writes, "applied", believe)


# -- attempts


def the_floor_is_forgotten(patch: Patch) -> None:
    """H5: ids at or below the floor that a prepare carries are over, and never locked again."""
    prepare = Attempts.prepare

    def below(self: Any, *asked: Any) -> bool:
        floor, self._floor = self._floor, Attempt(0, 0)
        locked = prepare(self, *asked)
        self._floor = max(floor, self._floor)
        return locked

    patch.setattr(Attempts, "prepare", below)


def grants_before_the_sequencers_record(patch: Patch) -> None:
    """H5: a shard grants only after it has applied a record of the asking sequencer's term."""
    prepare = Attempts.prepare

    def early(self: Any, token: Any, wanted: Any, *how: Any) -> bool:
        known = self.sequencer_term
        self.sequencer_term = max(known, wanted.attempt.term)
        locked = prepare(self, token, wanted, *how)
        self.sequencer_term = known
        return locked

    patch.setattr(Attempts, "prepare", early)


def locks_run_out(patch: Patch) -> None:
    """I11: a lock ends by its multi, its release or a later sequencer's record, not by the clock."""
    heartbeat = ShardRole._heartbeat

    def impatient(self: Any) -> None:
        heartbeat(self)
        if self.leading is not None:
            for attempt in self.leading.undecided():
                self.leading.release(attempt)

    patch.setattr(ShardRole, "_heartbeat", impatient)


def attempts_never_give_up(patch: Patch) -> None:
    """H19: locks are let go of while a participant has no leader."""
    init = Coordinator.__init__

    def patient(self: Any, *args: Any, **named: Any) -> None:
        init(self, *args, **named)
        self._give_up_ms = 1 << 40

    patch.setattr(Coordinator, "__init__", patient)


def attempts_begin_without_leaders(patch: Patch) -> None:
    """H19: an attempt begins when every participant has a leader, as far as is known."""
    patch.setattr(Coordinator, "_leads", lambda self, shard: True)


def leaders_are_never_forgotten(patch: Patch) -> None:
    """H19: a leader that has not granted in time must be heard of again."""
    give_up = Coordinator._give_up

    def trusting(self: Any, wide: Any) -> None:
        known = dict(self._has_leader)
        give_up(self, wide)
        self._has_leader = known

    patch.setattr(Coordinator, "_give_up", trusting)


def keys_of_a_lease_are_not_locked(patch: Patch) -> None:
    """H6 (iii): a revoke locks every key that hangs on the lease."""
    patch.setattr(Attempts, "_wanted", lambda self, prepare: prepare.footprint())


def expiries_share_a_revision(patch: Patch) -> None:
    """Review (b), Expiries: one revision for each lease that has keys."""

    def at_once(self: Any, view: Any, wide: Any, attempt: Any, participants: Any) -> Any:
        there = [lease for lease in wide.leases if view.lease_exists(lease)]
        keys = sorted({key for lease in there for key in view.lease_keys(lease)})
        deletes = b"".join(records.delete(key) for key in keys)
        parts = parts_of(view, self._placement, 0, deletes) if keys else []
        item = encode_multi(Multi(attempt, int(bool(keys)), participants, parts))
        item += b"".join(records.lease_revoke(lease, ()) for lease in there)
        return item, Outcome(item, bool(keys), b"", [(key, None) for key in keys], view.revision + bool(keys))

    patch.setattr(Evaluator, "_revoke", at_once)


# -- records, reports, answers


def effects_stand_first(patch: Patch) -> None:
    """Review (b), Record: items stand in the order in which the sequencer evaluated them."""
    seal = Leader.seal

    def sorted_(self: Any) -> Any:
        self._open.close_stretch(self._v2_tree)
        self._open.items.sort(key=lambda item: item[0] in (Item.CUT, Item.MULTI))
        return seal(self)

    patch.setattr(Leader, "seal", sorted_)


def reports_entries_of_older_terms(patch: Patch) -> None:
    """Review (b), Reports: only entries of the leader's own term are reported."""
    init = ShardLeader.__init__

    def inherited(self: Any, *args: Any, **named: Any) -> None:
        init(self, *args, **named)
        index, count = self._counts[0]
        self._counts.appendleft((index - 1, count))

    patch.setattr(ShardLeader, "__init__", inherited)


def says_future_by_itself(patch: Patch) -> None:
    """Negative knowledge: a revision above the applied one may be in the past of others."""
    scan = PendingOverlay.scan

    def sure(self: Any, start: bytes, end: bytes, revision: int = 0) -> Any:
        if revision > self._store.revision:
            raise EtcdError(errors.FUTURE_REV)
        return scan(self, start, end, revision)

    def check(view: PendingOverlay, plain: Plain) -> None:
        if any(op[0] == GET and op[4] > view.applied.revision for op in plain.success + plain.failure):
            raise EtcdError(errors.FUTURE_REV)

    def newest(self: Any) -> tuple[str, Any]:
        key = self._key()
        read, put = pb.RangeRequest(key=key, revision=self.shown), pb.PutRequest(key=key, value=self._value())
        return "Txn", pb.TxnRequest(success=[pb.RequestOp(request_range=read), pb.RequestOp(request_put=put)])

    patch.setattr(PendingOverlay, "scan", sure)
    patch.setattr(shard_leader, "check_plain", check)
    patch.setattr(Clients, "_txn", newest)


def answers_are_not_made_again(patch: Patch) -> None:
    """Review (b), Answers: what shows a pending key is bound to its revision when that is known."""
    bind = Reply.bind
    patch.setattr(
        Reply, "bind", lambda self, base, term, shown: bind(self._replace(late=None), base, term, shown)
    )


def all_shown_is_of_one_cut(patch: Patch) -> None:
    """D6: a pending revision becomes what the cut of its own entry gives."""
    bind = Bound.bind

    def first(self: Bound, pending: int, base: int) -> None:
        if not self._runs:
            bind(self, pending, base)

    patch.setattr(Bound, "bind", first)


def unchanged_answers_name_the_cuts_end(patch: Patch) -> None:
    """Review (b), header.revision: of a transaction that changed nothing it is the fold at its own place."""
    applied = ShardLeader.applied_entries

    def late(self: Any, last_index: int, base: int) -> None:
        covered = [batch for batch in self._sealed.entries if batch.index <= last_index]
        total, before = sum(batch.grown for batch in covered), 0
        for batch in covered:
            batch.replies = [r if r.changed else r._replace(before=total - before) for r in batch.replies]
            before += batch.grown
        applied(self, last_index, base)

    patch.setattr(ShardLeader, "applied_entries", late)


# -- fronts


def reads_join_a_question_under_way(patch: Patch) -> None:
    """H2, at the front: a question stands for the reads that came before it left."""
    ask = proxy.routing.reads.read_index.ReadIndexRounds.ask

    def join(self: Any) -> None:
        if self._questions:
            self._questions[-1].context.extend(self.waiting)
            self.waiting = []
        else:
            ask(self)

    patch.setattr(proxy.routing.reads.read_index.ReadIndexRounds, "ask", join)


def fronts_forget_what_they_showed(patch: Patch) -> None:
    """Monotone fronts: a serializable read waits for a replica that lacks what this front has shown."""
    patch.setattr(
        proxy.routing.router.Router,
        "highest",
        property(lambda self: 0, lambda self, value: None),
        raising=False,
    )


def serializable_spans_are_torn(patch: Patch) -> None:
    """H17: one revision for all shards, also for a serializable range."""
    gather = proxy.spanning.gather.Gather
    read = gather._serializable

    def latest(self: Any, waited: tuple[int, ...]) -> None:
        latest: Any = _LatestRead()
        real, proxy.spanning.gather.READ = proxy.spanning.gather.READ, latest  # type: ignore[attr-defined]
        try:
            read(self, waited)
        finally:
            proxy.spanning.gather.READ = real  # type: ignore[attr-defined]

    patch.setattr(gather, "_serializable", latest)


def latest_reads_end_as_compacted(patch: Patch) -> None:
    """H16: a read of the latest revision that meets a compaction starts over."""
    patch.setattr(proxy.spanning.gather, "_TRIES", 0)
    patch.setattr(Clients, "_compact", lambda self: ("Compact", pb.CompactionRequest(revision=self.shown)))


def repeated_events_are_passed_on(patch: Patch) -> None:
    """I16: what is at or below a part's position has been delivered: a part asks from there on, and drops
    it."""
    events, head = proxy.watch.parts.Part.events, proxy.watch.parts.SUBSCRIBE_HEAD
    patch.setattr(proxy.watch.parts, "SUBSCRIBE_HEAD", SimpleNamespace(
        pack=lambda first, flags, size: head.pack(1, flags, size)))

    def again(self: Any, batch: Any) -> None:
        position = self.position
        self.position = min(position, batch.first - 1)
        events(self, batch)
        self.position = max(position, self.position)

    patch.setattr(proxy.watch.parts.Part, "events", again)


def parts_join_without_history(patch: Patch) -> None:
    """I16, Join: what lies between a part's position and the first live event is read from history."""
    join = proxy.watch.parts.Part._join_or_fill

    def at_once(self: Any) -> None:
        self.position = max(self.position, self.live_from - 1)
        join(self)

    patch.setattr(proxy.watch.parts.Part, "_join_or_fill", at_once)


BUSY = {"busy_s": 0.02, "think_s": 0.001}
MUTANTS = [
    Mutant(
        acknowledges_controls_at_once,
        ("I20",),
        plan(mix={"put": 8, "compact": 4}, faults=("pause leader", "pause leader", "break")),
    ),
    Mutant(
        physical_compactions_wait_for_shard_0_only,
        ("I20",),
        plan(mix={"put": 8, "compact_away": 4}, faults=("pause leader", "pause leader", "break")),
    ),
    Mutant(
        expiries_outlive_their_term,
        ("H7", "I22 a lease"),
        plan(
            mix={"grant": 8, "keep": 30, "put": 4},
            faults=("isolate", "pause sequencer", "heal"),
            fault_every_s=0.6,
            seconds=6.0,
        ),
        first=32,
    ),
    Mutant(
        the_sequencer_judges_fates_by_index,
        ("I23", *WRONG),
        plan(
            faults=("isolate", "heal", "heal", "heal"),
            mix={"put": 1},
            clients=12,
            fault_every_s=0.3,
            patience=1.0,
            shards=1,
        ),
        first=17,
    ),
    Mutant(the_floor_is_forgotten, ("H5",), plan(shards=3, repeats=0.5, mix=WIDE, fault_every_s=9.0)),
    Mutant(
        grants_before_the_sequencers_record,
        ("H5",),
        plan(mix=WIDE, faults=("transfer", "kill sequencer", "restart"), fault_every_s=0.1, shards=3),
        first=2,
    ),
    Mutant(locks_run_out, ("I11", *WRONG), plan(mix=WIDE)),
    Mutant(
        attempts_never_give_up, ("H19",), plan(mix=WIDE, faults=("kill leader", "restart", "kill leader"))
    ),
    Mutant(
        attempts_begin_without_leaders,
        ("H19 no attempt",),
        plan(mix=WIDE, faults=("kill leader", "restart", "kill leader")),
    ),
    Mutant(
        leaders_are_never_forgotten,
        ("H19 no attempt",),
        plan(mix=WIDE, faults=("kill leader", "restart", "kill leader")),
    ),
    Mutant(
        keys_of_a_lease_are_not_locked,
        ("I15", *WRONG),
        plan(mix={"lease_put": 12, "put": 6, "delete": 4, "grant": 3, "revoke": 6}, fault_every_s=9.0),
        first=1,
    ),
    Mutant(
        expiries_share_a_revision,
        ("I22 each revision", *WRONG),
        plan(mix={"grant": 12, "lease_put": 20}, think_s=0.001, fault_every_s=9.0),
    ),
    Mutant(effects_stand_first, ("C4", *WRONG), plan(fault_every_s=9.0)),
    Mutant(
        reports_entries_of_older_terms,
        ("I3", "I6", *WRONG),
        plan(faults=("transfer", "kill leader", "restart"), fault_every_s=0.1, mix={"put": 1}, late=0.1),
        first=4,
    ),
    Mutant(
        says_future_by_itself,
        ("I22 no revision",),
        plan(mix={"txn": 20, "put": 4}, faults=("pause node", "transfer"), fault_every_s=0.1, clients=12),
    ),
    Mutant(answers_are_not_made_again, WRONG, plan(fault_every_s=9.0)),
    Mutant(all_shown_is_of_one_cut, WRONG, plan(mix={"txn": 20, "put": 6}, fault_every_s=9.0)),
    Mutant(unchanged_answers_name_the_cuts_end, WRONG, plan(mix={"txn": 20, "put": 6}, fault_every_s=9.0),
           first=2),
    Mutant(
        reads_join_a_question_under_way,
        ("I22 real time", "I24", "I14"),
        plan(mix={"put": 6, "range": 20}, clients=12, fault_every_s=9.0),
        first=10,
    ),
    Mutant(
        fronts_forget_what_they_showed,
        ("I14 a front",),
        plan(mix={"put": 8, "serializable": 8}, faults=("pause node", "cut pair", "heal", "late"), late=0.1),
        first=1,
    ),
    Mutant(serializable_spans_are_torn, WRONG, plan(mix={**HOT, "serializable": 20})),
    Mutant(
        latest_reads_end_as_compacted,
        ("I24 compacted only",),
        plan(mix={"put": 8, "range": 20, "compact": 6}, fault_every_s=9.0, **BUSY),
        first=9,
    ),
    Mutant(
        repeated_events_are_passed_on,
        ("I16",),
        plan(mix={**HOT, "watch": 3}, faults=(*CHANGES, "kill node", "restart")),
        first=2,
    ),
    Mutant(parts_join_without_history, ("I16",), plan(mix={**HOT, "watch": 3}, faults=SEQUENCERS)),
]

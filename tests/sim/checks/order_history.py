"""What was answered, against what was committed (I22): replay, then look at every answer and every watch.

The committed logs are folded once more, by the plainest code: an order record after the other, and for each
cut the entries of the shards it names. That gives every revision its changes. Then

* each revision belongs to exactly one request, which did exactly that to the state before it, or to a lease
  that was revoked or expired; no request has two (I5, I23);
* each answer is what a naive model of etcd (``tests/unit/semantics/model.py``) says in the state at its
  revision;
* nobody was shown a revision older than what anybody had been shown before he asked (real time);
* what was refused could be refused at some moment between question and answer; what was said not to be logged
  is not;
* each watch got exactly the events of its range, in order, from its start on, whole revisions at a time
  (I16);
* a lease lived at least as long as it was promised, and nothing hangs on one that is gone (I15).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cluster.effects import later_puts, records
from cluster.effects.records import Item, items
from cluster.evaluate.reading.ranges import Fields
from cluster.evaluate.spans import holds
from cluster.order import log as order
from cluster.pb import kv_pb2
from cluster.wire.protobuf import varint
from tests.sim.checks.order_hashes import Hashes
from tests.sim.checks.order_kinds import kinds_of
from tests.sim.checks.order_watching import WatchHistory
from tests.sim.clients.order_clients import Operation
from tests.sim.clients.order_leases import check_keys, check_list
from tests.sim.clients.order_users import CHANGES, Permissions
from tests.sim.world.order_world import Violation
from tests.unit.semantics.model import Model, Refused

if TYPE_CHECKING:
    from tests.sim.world.order_sim import Simulation

RECORD = 1  # EntryKind
_ABSENT = object()


@dataclass
class Change:
    """One key at one revision."""

    place: int
    key: bytes
    kv: Any  # KeyValue, None: deleted


@dataclass
class Replay:
    """All that was committed, in order."""

    changes: dict[int, list[Change]] = field(default_factory=dict)  # revision -> in order
    states: dict[int, dict[bytes, Any]] = field(default_factory=lambda: {1: {}})
    record_of: dict[int, int] = field(default_factory=dict)  # revision -> order index
    revoked_with: dict[int, int] = field(default_factory=dict)  # revision -> the lease whose end it is
    granted: dict[int, int] = field(default_factory=dict)  # lease -> order index
    ttls: dict[int, int] = field(default_factory=dict)  # lease -> seconds
    live: dict[int, None] = field(default_factory=dict)  # leases that are there now
    ended: dict[int, int] = field(default_factory=dict)
    rows: list[tuple[int, bytes]] = field(default_factory=list)  # order index, body of a ROWS item
    compactions: list[tuple[int, int]] = field(default_factory=list)  # order index, revision
    leases_at: dict[int, frozenset[int]] = field(default_factory=dict)  # revision -> leases just after it
    multis: dict[order.Attempt, int] = field(default_factory=dict)  # attempt -> order index
    spans: int = 0  # deletes that were logged as one
    # order index -> C_s of every shard
    cuts_at: list[dict[int, order.Cut]] = field(default_factory=lambda: [{}])
    revision_at: list[int] = field(default_factory=lambda: [1])  # order index -> revision there
    term_at: list[int] = field(default_factory=lambda: [0])  # order index -> the record's term
    revision: int = 1

    @property
    def order_index(self) -> int:
        """The last record that was folded."""
        return len(self.revision_at) - 1


class Answers(Model):
    """The model at one revision of a replay."""

    def __init__(self, replay: Replay, revision: int) -> None:
        self.states = replay.states
        self.revision = revision
        self.compacted = -1
        self.leases = dict.fromkeys(replay.granted, 1)
        self.new: Any = None

    def _commit(self, state: Any) -> None:
        self.revision += 1
        self.new = state


class Folder:
    """Folds order records as they become committed; ``logs``: shard -> index -> term, kind, data, of what is
    committed."""

    def __init__(self, logs: dict[int, dict[int, tuple[int, int, bytes]]], shards: range) -> None:
        self._logs = logs
        self._cuts = dict.fromkeys(shards, order.Cut())
        self.replay = Replay()

    def advance(self) -> None:
        """Fold every record that is known by now."""
        log, replay = self._logs.get(0, {}), self.replay
        while (index := replay.order_index + 1) in log:
            term, kind, data = log[index]
            if kind == RECORD:
                self._record(index, data)
            cuts = replay.cuts_at[-1]
            replay.cuts_at.append(cuts if cuts == self._cuts else dict(self._cuts))
            replay.term_at.append(term)
            replay.revision_at.append(replay.revision)  # last: now the record is folded

    def _record(self, index: int, data: bytes) -> None:
        replay = self.replay
        # revisions of a multi whose leases are named behind it: the last one's, no other's
        waiting: list[int] = []
        for kind, at, to in items(data):
            if kind == Item.CUT:
                for shard, cut in order.decode_cut(data, at, to):
                    self._cut(index, shard, cut)
            elif kind == Item.MULTI:
                multi = order.decode_multi(data, at, to)
                waiting = []
                if replay.multis.setdefault(multi.attempt, index) != index:
                    raise Violation("I10 one multi for each attempt", f"{multi} in {index} and {replay.multis[multi.attempt]}")
                for shard, term in multi.participants.items():
                    if self._cuts[shard].term != term:
                        raise Violation("I10 a multi rests on the terms of the latest cuts",
                                        f"{multi} in {index}, shard {shard} is at {self._cuts[shard]}")
                base = replay.revision
                for group in range(multi.groups):
                    changes = [change for p in multi.parts if p.group == group for change in _placed(p.items, 0, None, p.sub)]
                    self._at_one_revision(index, changes)
                    waiting.append(replay.revision)
                if any(p.group >= multi.groups for p in multi.parts) or replay.revision != base + multi.groups:
                    raise Violation("I5 a multi takes a revision for each group", f"{multi} in {index}")
            elif kind == Item.LEASE_GRANT:
                lease, ttl_s = records.LEASE.unpack_from(data, at)
                if lease in replay.live:
                    raise Violation("I15 a lease is granted once", f"{lease} in {index}")
                replay.granted[lease], replay.ttls[lease] = index, ttl_s
                replay.live[lease] = None
            elif kind == Item.LEASE_REVOKE:
                (lease,) = records.LEASE_ID.unpack_from(data, at)
                if to > at + 8:
                    self._at_one_revision(index, [(i, data, *item) for i, item in enumerate(items(data, at + 8, to))])
                    waiting.append(replay.revision)
                self._revoked(index, lease, waiting)
            elif kind == Item.COMPACT:
                (revision,) = records.REVISION.unpack_from(data, at)
                if revision > replay.revision:
                    raise Violation("I24 compaction above the revision", f"{revision} in {index}")
                replay.compactions.append((index, revision))
            elif kind == Item.ROWS:
                replay.rows.append((index, data[at:to]))
            elif kind in (Item.BOOTSTRAP, Item.PUBLISH, Item.INCARNATION, Item.LEASE_CHECKPOINT, Item.ALARM,
                          Item.DOWNGRADE, Item.HOST):
                pass
            else:
                self._own(index, data, kind, at, to)

    def _own(self, index: int, data: bytes, kind: int, at: int, to: int) -> None:
        if kind in (Item.TXN, Item.TXN_LONG):
            if to > at:
                self._at_one_revision(index, list(_placed(data, at, to, 0)))
        elif kind == Item.PUTS:
            puts = records.read_puts(data, at, to)
            if puts.revision != self.replay.revision + 1:
                raise Violation("I5 the sequencer knows its revisions", f"{puts} in {index}, after {self.replay.revision}")
            for key, kv in zip(puts.keys, puts.kvs, strict=True):  # as if each were an item of its own
                fields = Fields(kv)
                create = 0 if key not in self.replay.states[self.replay.revision] else fields.create
                item = records.put(key, create, fields.version, fields.value, fields.lease)
                self._at_one_revision(index, [(0, item, item[0], records.ITEM.size, len(item))])
                if kv_pb2.KeyValue.FromString(kv) != self.replay.states[self.replay.revision][key]:
                    raise Violation("I22 the sequencer knows what it puts", f"{kv!r} in {index}")
        elif kind == Item.PUTS_LATER:
            for item in later_puts.read(data, at, to).items():
                self._at_one_revision(index, [(0, item, item[0], records.ITEM.size, len(item))])
        else:
            self._at_one_revision(index, [(0, data, kind, at, to)])

    def _cut(self, index: int, shard: int, cut: order.Cut) -> None:
        log = self._logs.get(shard, {})
        if cut.index not in log:
            raise Violation("I3 a cut names a committed entry", f"{cut} of shard {shard} in {index}")
        if log[cut.index][0] != cut.term:
            raise Violation("I3 a cut names the entry's term", f"{cut} of shard {shard}: {log[cut.index][0]}")
        old = self._cuts[shard]
        if cut.index <= old.index or cut.term < old.term or cut.count < old.count:
            raise Violation("I4 cuts only rise", f"{cut} of shard {shard} after {old}")
        before = self.replay.revision
        for at in range(old.index + 1, cut.index + 1):
            _, kind, data = log[at]
            if kind == RECORD:
                for item in items(data, order.ENTRY_ITEMS):
                    self._own(index, data, *item)
        self._cuts[shard] = cut
        if self.replay.revision - before != cut.count - old.count:
            raise Violation("I3 a cut counts what it puts in order", f"{cut} of shard {shard} in {index}")

    def _revoked(self, index: int, lease: int, waiting: list[int]) -> None:
        replay = self.replay
        if lease not in replay.live:
            return  # it was given out as due twice, or revoked and due
        del replay.live[lease]
        replay.ended[lease] = index
        left = [k for k, kv in replay.states[replay.revision].items() if kv.lease == lease]
        if left:
            raise Violation("I15 no key hangs on a lease that is gone", f"{lease} in {index}: {left}")
        for revision in waiting:
            gone = replay.changes[revision]
            before = replay.states[revision - 1]
            if all(c.kv is None and before[c.key].lease == lease for c in gone):
                replay.revoked_with[revision] = lease

    def _at_one_revision(self, index: int, changes: list[tuple[int, bytes, int, int, int]]) -> None:
        """``(place, data, kind, start, end)`` each."""
        replay = self.replay
        replay.revision = revision = replay.revision + 1
        before = replay.states[revision - 1]
        state = dict(before)
        done: list[Change] = []
        mod = varint(revision)
        counted: dict[tuple[int, bytes, bytes], int] = {}  # keys of a deleted range over all shards
        for place, data, kind, at, to in changes:
            if kind == Item.DELETE_RANGE:
                start, range_end, count = records.read_delete_range(data, at, to)
                counted[place, start, range_end] = counted.get((place, start, range_end), 0) + count
        for place, data, kind, at, to in sorted(changes):
            if kind == Item.DELETE_RANGE:
                start, range_end, _ = records.read_delete_range(data, at, to)
                replay.spans += 1
                # 0: another shard's part of the same has done it
                count = counted.pop((place, start, range_end), 0)
                gone = [key for key in sorted(state) if holds((start, range_end), key)] if count else []
                if len(gone) != count:
                    raise Violation("I22 a range holds what was counted", f"{gone}, {count} at {revision}, record {index}")
                for key in gone:
                    del state[key]
                    done.append(Change(place, key, None))
                continue
            if kind == Item.DELETE:
                key = data[at:to]
                if state.pop(key, _ABSENT) is _ABSENT:
                    raise Violation("I22 a delete finds its key", f"{key!r} at {revision}, record {index}")
                done.append(Change(place, key, None))
                continue
            key = records.key_of(data, kind, at, to)
            old = state.get(key)
            if kind == Item.PUT_REF:
                if old is None:
                    raise Violation("I22 a put finds its key", f"{key!r} at {revision}, record {index}")
                kv = records.read_put_ref(data, at, to, old.create_revision, mod)[1]
            else:
                kv = records.read_put(data, kind, at, to, mod)[1]
            new = kv_pb2.KeyValue.FromString(kv)
            if new.version != (old.version + 1 if old else 1) or new.create_revision != (
                    old.create_revision if old else revision) or new.mod_revision != revision:
                raise Violation("I22 a put continues its key", f"{new} at {revision}, before: {old}")
            if new.lease and new.lease not in self.replay.live:
                raise Violation("I15 an effect names a lease that is there", f"{new} at {revision}, record {index}")
            state[key] = new
            done.append(Change(place, key, new))
        replay.changes[revision] = done
        replay.states[revision] = state
        replay.record_of[revision] = index
        replay.leases_at[revision] = frozenset(self.replay.live)


def _placed(data: bytes, pos: int, end: int | None, place: int) -> Iterator[tuple[int, bytes, int, int, int]]:
    """The changes of one revision with their places, the first of which is ``place``."""
    for kind, at, to in items(data, pos, end):
        yield place, data, kind, at, to
        place += records.read_delete_range(data, at, to)[2] if kind == Item.DELETE_RANGE else 1


def check_history(simulation: Simulation) -> None:
    """Raises Violation; counts what was checked."""
    replay = simulation.checker.replay
    counts = simulation.checker.counts
    counts["revisions"] = replay.revision - 1
    counts["multis"] = len(replay.multis)
    counts["spans"] = replay.spans
    history = History(simulation, replay)
    for operation in simulation.clients.operations:
        history.answer(operation)
    history.owners()
    watches = WatchHistory(simulation, replay)
    for watch in simulation.clients.watches:
        watches.check(watch)
    history.leases()
    counts["answers"] = history.checked


class History:
    """The checks of one run."""

    def __init__(self, simulation: Simulation, replay: Replay) -> None:
        self._simulation = simulation
        self._replay = replay
        self._owner: dict[int, Operation] = {}
        self._hashes = Hashes(replay)
        self.checked = 0
        self._users: Permissions | None = getattr(simulation.clients, "permissions", None)
        # committed revision at a time: steps of (time, revision)
        checker = simulation.checker
        at: dict[int, float] = {r: checker.committed_at[i] for r, i in replay.record_of.items()}
        self._committed_at = at

    def _bad(self, rule: str, operation: object, text: str = "") -> Violation:
        return Violation(rule, f"{operation} {text}")

    # -- answers

    def answer(self, o: Operation) -> None:
        """One request's answer."""
        users = self._users
        if users is not None and o.ok:
            users.answered(o)
            if o.method in CHANGES:
                return
        if o.ok:
            self.checked += 1
            check = getattr(self, f"_ok_{o.method.lower()}")
            check(o)
        elif o.refused:
            self.checked += 1
            if users is None or not users.refused(o):
                self._refusal(o)
        self._simulation.checker.kinds.update(kinds_of(o))

    def _real_time(self, o: Operation, revision: int, changed: bool) -> None:
        if revision < o.low + changed:
            raise self._bad("I22 real time", o, f"revision {revision} (changed: {changed}), shown before: {o.low}")
        if revision > 1 and self._committed_at.get(revision, 1e9) > o.answered_at:
            raise self._bad("I7 answered after commit", o, f"revision {revision}")

    def _same(self, o: Operation, model: Answers) -> bool:
        try:
            wanted = model.call(o.method, o.request)
        except Refused:
            return False
        got = type(o.response)()
        got.CopyFrom(o.response)
        got.header.Clear()
        got.header.revision = o.response.header.revision
        return bool(got == wanted)

    def _write(self, o: Operation) -> None:
        revision = o.response.header.revision
        replay = self._replay
        if revision > replay.revision:
            raise self._bad("I22 an answer's revision exists", o)
        if revision > 1 and revision not in self._owner and revision not in replay.revoked_with:
            model = Answers(replay, revision - 1)
            if self._same(o, model) and model.revision == revision and model.new == replay.states[revision]:
                self._owner[revision] = o
                self._real_time(o, revision, True)
                self._not_compacted(o)
                return
        model = Answers(replay, revision)
        if not (self._same(o, model) and model.revision == revision):
            raise self._bad("I22 an answer is what the replay gives", o,
                            f"(revision {revision} changed {replay.changes.get(revision)})")
        self._real_time(o, revision, False)
        self._not_compacted(o)

    def _not_compacted(self, o: Operation) -> None:
        """I24, of the ranges that a transaction ran."""
        if o.method == "Txn":
            below = self._compacted_before(o.asked_at)
            for op in o.request.success if o.response.succeeded else o.request.failure:
                if op.HasField("request_range") and 0 < op.request_range.revision < below:
                    raise self._bad("I24 no read below a compaction", o, f"{below}")

    _ok_put = _ok_deleterange = _ok_txn = _write

    def _ok_range(self, o: Operation) -> None:
        revision = o.response.header.revision
        replay = self._replay
        if revision > replay.revision:
            raise self._bad("I22 an answer's revision exists", o)
        if not self._same(o, Answers(replay, revision)):
            raise self._bad("I22 a read is what the replay gives", o)
        if revision > 1 and self._committed_at[revision] > o.answered_at:
            raise self._bad("I7 answered after commit", o, f"revision {revision}")
        if not o.request.serializable:
            self._real_time(o, revision, False)
            at = o.request.revision or revision
            if at < self._compacted_before(o.asked_at):
                raise self._bad("I24 no read below a compaction", o, f"at {at}")

    def _ok_compact(self, o: Operation) -> None:
        if not any(revision == o.request.revision for _, revision in self._replay.compactions):
            raise self._bad("I22 an acknowledged compaction is in the order", o)

    def _ok_leasegrant(self, o: Operation) -> None:
        if o.response.ID not in self._replay.granted:
            raise self._bad("I22 an acknowledged grant is in the order", o)

    def _ok_leaserevoke(self, o: Operation) -> None:
        replay, lease, revision = self._replay, o.request.ID, o.response.header.revision
        if lease not in replay.ended:
            raise self._bad("I22 an acknowledged revoke is in the order", o)
        if replay.revoked_with.get(revision) == lease:
            self._owner.setdefault(revision, o)
            self._real_time(o, revision, True)
        else:
            self._real_time(o, revision, False)
        if any(kv.lease == lease for kv in replay.states[revision].values()):
            raise self._bad("I15 no key hangs on a lease that is gone", o)

    def _ok_leasekeepalive(self, o: Operation) -> None:
        lease, replay = o.request.ID, self._replay
        if o.response.TTL > 0:
            if lease in replay.ended and self._time_of(replay.ended[lease]) < o.asked_at:
                raise self._bad("H7 a lease that is gone is not kept alive", o)
        elif not self._may_be_missing(lease, o):
            raise self._bad("I22 a lease that is there is kept alive", o)

    def _ok_leasetimetolive(self, o: Operation) -> None:
        if o.response.TTL >= 0:
            check_keys(self._simulation, self._replay, o, self._committed_by(o.answered_at))
        elif not self._may_be_missing(o.request.ID, o):
            raise self._bad("I22 a lease that is there has time to live", o)

    def _ok_leaseleases(self, o: Operation) -> None:
        check_list(self._simulation, self._replay, o)

    def _ok_hashkv(self, o: Operation) -> None:
        self._hashes.answered(o)

    # -- refusals

    def _time_of(self, index: int) -> float:
        return self._simulation.checker.committed_at[index]

    def _may_be_missing(self, lease: int, o: Operation) -> bool:
        """Whether at some moment between question and answer there was no such lease."""
        replay = self._replay
        if lease not in replay.granted:
            return True
        known = [g.answered_at for g in self._simulation.clients.operations
                 if g.method == "LeaseGrant" and g.ok and lease == g.response.ID]
        if not known or known[0] > o.asked_at:
            return True  # not known to be granted when it was asked
        return lease in replay.ended and self._time_of(replay.ended[lease]) <= o.answered_at

    def _compacted_before(self, time: float) -> int:
        """A compaction that was acknowledged by then."""
        return max((o.request.revision for o in self._simulation.clients.operations
                    if o.method == "Compact" and o.ok and o.answered_at < time), default=0)

    def _refusal(self, o: Operation) -> None:
        text, request = o.error or "", o.request
        if "lease not found" in text:
            leases = [request.lease] if o.method == "Put" else [request.ID] if o.method == "LeaseRevoke" else [
                op.request_put.lease for ops in (request.success, request.failure) for op in ops]
            if not any(lease and self._may_be_missing(lease, o) for lease in leases):
                raise self._bad("I22 no lease is missing that is there", o)
        elif "has been compacted" in text:
            wanted = _revisions(o)
            highest = max((r for i, r in self._replay.compactions if self._time_of(i) <= o.answered_at), default=0)
            if not any(0 < revision <= highest for revision in wanted):  # H16: the latest revision never is
                raise self._bad("I24 compacted only what is compacted", o, f"{highest}")
        elif "future revision" in text:
            # that is a replica's own
            if o.method != "HashKV" and not any(revision > o.low for revision in _revisions(o)):
                raise self._bad("I22 no revision is in the future that was shown", o, f"{o.low}")
        elif "key not found" in text:
            low, high = o.low, self._committed_by(o.answered_at)
            for revision in range(low, high + 1):
                try:
                    Answers(self._replay, revision).call(o.method, request)
                except Refused:
                    return
            raise self._bad("I22 a key is not found that is there", o)
        elif "lease already exists" in text or "duplicate key" in text:
            pass
        else:
            raise self._bad("an answer that was not to be expected", o)

    def _committed_by(self, time: float) -> int:
        return max((r for r, at in self._committed_at.items() if at <= time), default=1)

    # -- every revision has one owner

    def owners(self) -> None:
        """Whose is what nobody was answered? (I5, I23)"""
        replay = self._replay
        open_ = [o for o in self._simulation.clients.operations if o.open and o.method in ("Put", "DeleteRange", "Txn")]
        by_value: dict[bytes, list[Operation]] = defaultdict(list)
        rest: list[Operation] = []
        for o in open_:
            values = _values(o)
            for value in values:
                by_value[value].append(o)
            if not values or o.method == "Txn":
                rest.append(o)
        # they write what another one wrote
        keeping = [o for o in open_ if o.method == "Put" and o.request.ignore_value]
        taken: dict[int, int] = {}  # number of a request -> the revision that is taken for its own
        candidates: dict[int, list[Operation]] = {}
        for revision in range(2, replay.revision + 1):
            if revision in self._owner or revision in replay.revoked_with:
                continue
            named = [o for c in replay.changes[revision] if c.kv is not None for o in by_value.get(c.kv.value, ())]
            candidates[revision] = [o for o in dict.fromkeys((*named, *keeping)) if self._did(o, revision)] or [
                o for o in dict.fromkeys((*rest, *open_)) if self._did(o, revision)]
            if not _assign(revision, candidates, taken, set()):
                written = {c.kv.value for c in replay.changes[revision] if c.kv is not None}
                asked = [o for o in self._simulation.clients.operations if written & set(_values(o))]
                raise Violation("I22 each revision belongs to one request",
                                f"{revision} (record {replay.record_of[revision]}): "
                                f"{replay.changes[revision]}; {asked}")
        if self._users is not None:
            for revision, o in self._owner.items():
                self._users.owned(o, revision)
            for revision, named in candidates.items():
                if len(named) == 1:
                    self._users.owned(named[0], revision)
            self._users.check()

    def _did(self, o: Operation, revision: int) -> bool:
        """Whether this may be what a request without an answer did."""
        if self._committed_at[revision] < o.asked_at or revision <= o.low:
            return False
        model = Answers(self._replay, revision - 1)
        try:
            model.call(o.method, o.request)
        except Refused:
            return False
        return bool(model.revision == revision and model.new == self._replay.states[revision])

    # -- leases

    def leases(self) -> None:
        """No lease ended by itself before the time that was promised (H7, I15)."""
        asked = {o.request.ID for o in self._simulation.clients.operations if o.method == "LeaseRevoke"}
        self._simulation.checker.kinds["a lease ended by itself"] += len(self._replay.ended.keys() - asked)
        for lease, until in self._simulation.clients.alive_until.items():
            ended = self._replay.ended.get(lease)
            if ended is not None and lease not in asked and self._time_of(ended) < until:
                raise Violation("H7 a lease lives as long as promised",
                                f"{lease} ended at {self._time_of(ended)}, promised until {until}")


def _assign(revision: int, candidates: dict[int, list[Operation]], taken: dict[int, int], tried: set[int]) -> bool:
    """Give a revision a request of its own, if need be by giving another revision another one: two deletes of
    one key look the same."""
    for o in candidates[revision]:
        if o.number not in tried:
            tried.add(o.number)
            if o.number not in taken or _assign(taken[o.number], candidates, taken, tried):
                taken[o.number] = revision
                return True
    return False


def _values(o: Operation) -> list[bytes]:
    if o.method == "Put":
        return [o.request.value] if not o.request.ignore_value else []
    if o.method == "Txn":
        return [op.request_put.value for ops in (o.request.success, o.request.failure) for op in ops
                if op.HasField("request_put")]
    return []


def _revisions(o: Operation) -> list[int]:
    """The revisions that a request names."""
    if o.method in ("Range", "Compact", "HashKV"):
        return [o.request.revision] if o.request.revision else [0]
    if o.method == "Txn":
        return [op.request_range.revision for ops in (o.request.success, o.request.failure) for op in ops
                if op.HasField("request_range")]
    return []


"""What was answered, against what was committed (I22): replay, then look at every answer and every watch.

The committed logs are folded once more (``order_replay``), which gives every revision its changes. Then

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
from typing import TYPE_CHECKING, Any

from tests.sim.checks.order_hashes import Hashes
from tests.sim.checks.order_kinds import kinds_of
from tests.sim.checks.order_replay import Life, Replay
from tests.sim.checks.order_watching import WatchHistory
from tests.sim.clients.order_clients import Operation
from tests.sim.clients.order_leases import check_keys, check_list, places_told
from tests.sim.clients.order_users import CHANGES, Permissions
from tests.sim.world.order_world import Violation
from tests.unit.semantics.model import Model, Refused

if TYPE_CHECKING:
    from tests.sim.world.order_sim import Simulation


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


def check_history(simulation: Simulation) -> None:
    """Raises Violation; counts what was checked."""
    replay = simulation.checker.replay
    counts = simulation.checker.counts
    counts["revisions"] = replay.revision - 1
    counts["multis"] = len(replay.multis)
    counts["spans"] = replay.spans
    counts["parts"] = replay.parts
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
        self._hashes = Hashes(replay, simulation.checker.owners)
        self.checked = 0
        self._users: Permissions | None = getattr(simulation.clients, "permissions", None)
        # committed revision at a time: steps of (time, revision)
        checker = simulation.checker
        at: dict[int, float] = {r: checker.committed_at[i] for r, i in replay.record_of.items()}
        self._committed_at = at
        operations = simulation.clients.operations
        self._acknowledged = [  # compactions
            (o.answered_at, o.request.revision) for o in operations if o.method == "Compact" and o.ok]
        self._places = places_told(replay, operations)

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
            raise self._bad("I22 real time", o,
                            f"revision {revision} (changed: {changed}), shown before: {o.low}")
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
        if not any(self._time_of(life.granted) <= o.answered_at for life in self._lives(o.response.ID)):
            raise self._bad("I22 an acknowledged grant is in the order", o)

    def _ok_leaserevoke(self, o: Operation) -> None:
        replay, lease, revision = self._replay, o.request.ID, o.response.header.revision
        if lease not in replay.ended:
            raise self._bad("I22 an acknowledged revoke is in the order", o)
        once = len(self._lives(lease)) == 1
        own = replay.revoked_with.get(revision) == lease and any(  # that of its last keys, not of a part
            life.ended == replay.record_of[revision] for life in self._lives(lease))
        if own and (once or (revision > o.low and self._committed_at[revision] >= o.asked_at)):
            self._owner.setdefault(revision, o)
            self._real_time(o, revision, True)
        else:
            self._real_time(o, revision, False)
        if any(kv.lease == lease for kv in replay.states[revision].values()):
            raise self._bad("I15 no key hangs on a lease that is gone", o)

    def _ok_leasekeepalive(self, o: Operation) -> None:
        lease = o.request.ID
        if o.response.TTL > 0:
            if all(life.ended is not None and self._time_of(life.ended) < o.asked_at
                   for life in self._lives(lease)):
                raise self._bad("H7 a lease that is gone is not kept alive", o)
        elif not self._may_be_missing(lease, o):
            raise self._bad("I22 a lease that is there is kept alive", o)

    def _ok_leasetimetolive(self, o: Operation) -> None:
        if o.response.TTL >= 0:
            check_keys(self._simulation, self._replay, o, self._committed_by(o.answered_at))
        elif not self._may_be_missing(o.request.ID, o):
            raise self._bad("I22 a lease that is there has time to live", o)

    def _ok_leaseleases(self, o: Operation) -> None:
        check_list(self._simulation, self._replay, o, self._places)

    def _ok_hashkv(self, o: Operation) -> None:
        self._hashes.answered(o)

    # -- refusals

    def _time_of(self, index: int) -> float:
        return self._simulation.checker.committed_at[index]

    def _lives(self, lease: int) -> list[Life]:
        return self._replay.lives.get(lease, [])

    def _may_be_missing(self, lease: int, o: Operation) -> bool:
        """Whether at some moment between question and answer there was no such lease."""
        grants = [g for g in self._simulation.clients.operations
                  if g.method == "LeaseGrant" and g.ok and lease == g.response.ID]
        for life in self._lives(lease):
            granted_at = self._time_of(life.granted)
            known = any(g.asked_at <= granted_at <= g.answered_at <= o.asked_at for g in grants)
            # else it is not known to be granted when it was asked
            if known and (life.ended is None or self._time_of(life.ended) > o.answered_at):
                return False
        return True

    def _compacted_before(self, time: float) -> int:
        """A compaction that was acknowledged by then."""
        return max((revision for at, revision in self._acknowledged if at < time), default=0)

    def _refusal(self, o: Operation) -> None:
        text, request = o.error or "", o.request
        if "lease not found" in text:
            leases = (
                [request.lease] if o.method == "Put" else [request.ID] if o.method == "LeaseRevoke" else
                [op.request_put.lease for ops in (request.success, request.failure) for op in ops])
            if not any(lease and self._may_be_missing(lease, o) for lease in leases):
                raise self._bad("I22 no lease is missing that is there", o)
        elif "has been compacted" in text:
            wanted = _revisions(o)
            highest = max(
                (r for i, r in self._replay.compactions if self._time_of(i) <= o.answered_at), default=0)
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
        elif "lease already exists" in text:
            if not any(self._time_of(life.granted) <= o.answered_at and (
                    life.ended is None or self._time_of(life.ended) >= o.asked_at)
                    for life in self._lives(request.ID)):
                raise self._bad("I22 no lease is there that is gone", o)
        elif "duplicate key" in text:
            pass
        else:
            raise self._bad("an answer that was not to be expected", o)

    def _committed_by(self, time: float) -> int:
        return self._replay.committed_by(time, self._simulation.checker.committed_at)

    # -- every revision has one owner

    def owners(self) -> None:
        """Whose is what nobody was answered? (I5, I23)"""
        replay = self._replay
        clients = self._simulation.clients
        open_ = [o for o in (*clients.left, *clients.operations)
                 if o.open and o.method in ("Put", "DeleteRange", "Txn")]
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
            named = [o for c in replay.changes[revision] if c.kv is not None
                     for o in by_value.get(c.kv.value, ())]
            candidates[revision] = (
                [o for o in dict.fromkeys((*named, *keeping)) if self._did(o, revision)] or
                [o for o in dict.fromkeys((*rest, *open_)) if self._did(o, revision)])
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
        """No lease ended by itself before the time that was promised (H7, I15). An ID may be granted
        more than once: the promise is of one of those that were there when it was given."""
        operations = self._simulation.clients.operations
        asked = {o.request.ID for o in operations if o.method == "LeaseRevoke"}
        self._simulation.checker.kinds["a lease ended by itself"] += len(self._replay.ended.keys() - asked)
        for lease, promises in self._simulation.clients.promises.items():
            revokes = [o for o in operations
                       if o.method == "LeaseRevoke" and lease == o.request.ID and (o.ok or o.open)]
            for o, until in promises:
                if not any(self._kept(life, o, until, revokes) for life in self._lives(lease)):
                    raise self._bad("H7 a lease lives as long as promised", o,
                                    f"until {until}: {self._lives(lease)}")

    def _kept(self, life: Life, o: Operation, until: float, revokes: list[Operation]) -> bool:
        """Whether this one was there when that was answered, and lived so long, or was revoked."""
        if self._time_of(life.granted) > o.answered_at:
            return False
        if life.ended is None or (ended := self._time_of(life.ended)) >= until:
            return True
        return ended >= o.asked_at and any(
            by.asked_at <= ended and (by.open or ended <= by.answered_at) for by in revokes)


def _assign(revision: int, candidates: dict[int, list[Operation]], taken: dict[int, int],
            tried: set[int]) -> bool:
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


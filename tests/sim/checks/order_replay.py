"""The committed logs, folded once more by the plainest code: an order record after the other, and for each
cut the entries of the shards it names. That gives every revision its changes (I3, I4, I5, I10, I15, I24 and
the first half of I22).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from cluster.effects import later_puts, records
from cluster.effects.records import Item, items
from cluster.evaluate.reading.ranges import Fields
from cluster.evaluate.spans import holds
from cluster.features import rows
from cluster.features.rows import RowsOf
from cluster.members.table import Host
from cluster.order import log as order
from cluster.pb import kv_pb2
from cluster.placement.base import Base
from cluster.placement.changes import read_voters, shard_state
from cluster.placement.table import State
from cluster.wire.protobuf import varint
from tests.sim.checks.order_owners import Owners, keys_of
from tests.sim.checks.order_parts import Parts
from tests.sim.world.order_world import Violation

RECORD = 1  # EntryKind
_ABSENT = object()


@dataclass
class Change:
    """One key at one revision."""

    place: int
    key: bytes
    kv: Any  # KeyValue, None: deleted


@dataclass
class Life:
    """A lease from its grant to its end; its ID may be granted anew."""

    granted: int  # order index
    ttl_s: int
    ended: int | None = None  # order index


@dataclass
class Replay:
    """All that was committed, in order."""

    changes: dict[int, list[Change]] = field(default_factory=dict)  # revision -> in order
    states: dict[int, dict[bytes, Any]] = field(default_factory=lambda: {1: {}})
    record_of: dict[int, int] = field(default_factory=dict)  # revision -> order index
    revoked_with: dict[int, int] = field(default_factory=dict)  # revision -> the lease whose end it is
    granted: dict[int, int] = field(default_factory=dict)  # lease -> order index
    ttls: dict[int, int] = field(default_factory=dict)  # lease -> seconds
    lives: dict[int, list[Life]] = field(default_factory=dict)  # lease -> in order
    live: dict[int, None] = field(default_factory=dict)  # leases that are there now
    left: dict[int, int] = field(default_factory=dict)  # lease -> seconds, by its last checkpoint
    noted: dict[int, int] = field(default_factory=dict)  # lease -> order index of its last checkpoint
    ended: dict[int, int] = field(default_factory=dict)
    rows: list[tuple[int, bytes]] = field(default_factory=list)  # order index, body of a ROWS item
    compactions: list[tuple[int, int]] = field(default_factory=list)  # order index, revision
    leases_at: dict[int, frozenset[int]] = field(default_factory=dict)  # revision -> leases just after it
    multis: dict[order.Attempt, int] = field(default_factory=dict)  # attempt -> order index
    level: int = 0  # to which the data has grown
    spans: int = 0  # deletes that were logged as one
    parts: int = 0  # of leases' ends, but for the last ones
    # order index -> C_s of every shard
    cuts_at: list[dict[int, order.Cut]] = field(default_factory=lambda: [{}])
    revision_at: list[int] = field(default_factory=lambda: [1])  # order index -> revision there
    term_at: list[int] = field(default_factory=lambda: [0])  # order index -> the record's term
    revision: int = 1

    @property
    def order_index(self) -> int:
        """The last record that was folded."""
        return len(self.revision_at) - 1

    def committed_by(self, time: float, committed_at: Mapping[int, float]) -> int:
        """The revision then. ``committed_at``: when each record was, by order index: times never fall."""
        revisions = range(2, self.revision + 1)
        return 1 + bisect_right(revisions, time, key=lambda r: committed_at[self.record_of[r]])


class Groups(Protocol):
    """Of all shards."""

    def born(self, shard: int, voters: Collection[int]) -> None: ...
    def dropped(self, shard: int) -> None: ...


class Folder:
    """Folds order records as they become committed; ``logs``: shard -> index -> term, kind, data, of what is
    committed."""

    def __init__(
        self, logs: dict[int, dict[int, tuple[int, int, bytes]]], shards: range, hosts: Iterable[int] = (),
        groups: Groups | None = None, parts: Parts | None = None,
    ) -> None:
        """``hosts``: that the cluster began with; ``groups``: follow its shards; ``parts``: of leases'
        ends."""
        self._parts = parts or Parts()
        self._groups = groups
        self.owners = Owners(Base(len(shards), 1))
        self._logs = logs
        self._members = set(hosts)
        self._said: dict[int, int] = {}  # member -> level of data that it has said it knows
        self._cuts = dict.fromkeys(shards, order.Cut())
        self.made_up: set[tuple[int, int]] = set()  # shard and index of what a forced start made up
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
                    raise Violation("I10 one multi for each attempt",
                                    f"{multi} in {index} and {replay.multis[multi.attempt]}")
                for shard, term in multi.participants.items():
                    if self._cuts[shard].term != term:
                        raise Violation("I10 a multi rests on the terms of the latest cuts",
                                        f"{multi} in {index}, shard {shard} is at {self._cuts[shard]}")
                base = replay.revision
                for p in multi.parts:
                    for item in items(p.items):
                        self.owners.wrote(
                            index, p.shard, keys_of(p.items, *item), replay.revision + p.group + 1)
                for group in range(multi.groups):
                    changes = [change for p in multi.parts if p.group == group
                               for change in _placed(p.items, 0, None, p.sub)]
                    self._at_one_revision(index, changes)
                    waiting.append(replay.revision)
                if (any(p.group >= multi.groups for p in multi.parts)
                        or replay.revision != base + multi.groups):
                    raise Violation("I5 a multi takes a revision for each group", f"{multi} in {index}")
                if (lease := self._parts.multis.get(multi.attempt)) is not None:
                    self._part(lease)
            elif kind == Item.LEASE_GRANT:
                lease, ttl_s = records.LEASE.unpack_from(data, at)
                if lease in replay.live:
                    raise Violation("I15 a lease is granted once", f"{lease} in {index}")
                replay.granted[lease], replay.ttls[lease] = index, ttl_s
                replay.live[lease] = None
                for noted in (replay.left, replay.noted):  # of a lease before it
                    noted.pop(lease, None)
                replay.lives.setdefault(lease, []).append(Life(index, ttl_s))
            elif kind == Item.LEASE_REVOKE:
                (lease,) = records.LEASE_ID.unpack_from(data, at)
                if to > at + 8:
                    self._at_one_revision(
                        index, [(i, data, *item) for i, item in enumerate(items(data, at + 8, to))])
                    waiting.append(replay.revision)
                self._revoked(index, lease, waiting)
            elif kind == Item.COMPACT:
                (revision,) = records.REVISION.unpack_from(data, at)
                if revision > replay.revision:
                    raise Violation("I24 compaction above the revision", f"{revision} in {index}")
                replay.compactions.append((index, revision))
                self.owners.compacted(index, revision)
            elif kind == Item.ROWS:
                replay.rows.append((index, data[at:to]))
                if data[at] == RowsOf.VERSIONS:
                    for name, value in rows.decode(data, at, to)[1]:
                        level = int.from_bytes((value or b"")[:2], "little")
                        self._said[int.from_bytes(name, "big")] = level
            elif kind == Item.HOST:
                host = Host.decode(data[at:to])
                (self._members.discard if host.removed else self._members.add)(host.member_id)
            elif kind == Item.SHARD:
                self._shard(index, data, at, to)
            elif kind == Item.MOVE:
                self.owners.begun(data, at, to)
            elif kind == Item.MOVED:
                self.owners.ended(index, data, at, replay.states, replay.revision)
            elif kind == Item.GROWTH:
                self._grown(index, int.from_bytes(data[at : at + 2], "little"))
            elif kind == Item.LEASE_CHECKPOINT:
                lease, left_s = records.LEASE.unpack_from(data, at)
                if lease not in replay.live:
                    raise Violation("H7 a checkpoint is of a lease that is there", f"{lease} in {index}")
                replay.left[lease], replay.noted[lease] = left_s, index
            elif kind in (Item.BOOTSTRAP, Item.PUBLISH, Item.INCARNATION, Item.ALARM, Item.DOWNGRADE):
                pass
            else:
                self._own(0, index, data, kind, at, to)
                if (self._logs[0][index][0], replay.revision) in self._parts.alone:
                    first = replay.changes[replay.revision][0].key
                    self._part(replay.states[replay.revision - 1][first].lease)

    def _part(self, lease: int) -> None:
        """What was folded last is a part of a lease's end."""
        self.replay.parts += 1
        if lease not in self.replay.live:
            raise Violation("I15 a part leaves its lease for what is left", f"{lease}")
        self._went(self.replay.revision, lease)

    def _went(self, revision: int, lease: int) -> None:
        """What changed there goes with a lease, if it is that: else it is to be a request's."""
        before = self.replay.states[revision - 1]
        if all(c.kv is None and before[c.key].lease == lease for c in self.replay.changes[revision]):
            self.replay.revoked_with[revision] = lease

    def _shard(self, index: int, data: bytes, at: int, to: int) -> None:
        shard, state = shard_state(data, at)
        if not self.replay.level:
            raise Violation("G16 no growth before GROWTH", f"shard {shard} in {index}")
        self.owners.shard(index, shard, State(state))
        if state == State.FORMING:
            self._cuts[shard] = order.Cut()
        if self._groups is not None and state == State.FORMING:
            self._groups.born(shard, read_voters(data, at, to))
        elif self._groups is not None and state == State.DROPPED:
            self._groups.dropped(shard)

    def _grown(self, index: int, level: int) -> None:
        late = {member: self._said.get(member, 0) for member in self._members}
        if min(late.values()) < level:
            raise Violation("G16 no growth before every member has said that it knows it",
                            f"level {level} in {index}, members know {late}")
        if level <= self.replay.level:
            raise Violation("G16 levels only rise", f"{level} in {index} after {self.replay.level}")
        self.replay.level = level

    def _own(self, shard: int, index: int, data: bytes, kind: int, at: int, to: int) -> None:
        self.owners.wrote(index, shard, keys_of(data, kind, at, to), self.replay.revision + 1)
        if kind in (Item.TXN, Item.TXN_LONG):
            if to > at:
                self._at_one_revision(index, list(_placed(data, at, to, 0)))
        elif kind == Item.PUTS:
            puts = records.read_puts(data, at, to)
            if puts.revision != self.replay.revision + 1:
                raise Violation("I5 the sequencer knows its revisions",
                                f"{puts} in {index}, after {self.replay.revision}")
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
        self.owners.cut(index, shard)
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
                    self._own(shard, index, data, *item)
                while (shard, at) in self.made_up and (
                        self.replay.revision - before < order.entry_count(data) - old.count):
                    self._at_one_revision(index, [])  # H18: the revisions of what is lost
        self._cuts[shard] = cut
        if self.replay.revision - before != cut.count - old.count:
            raise Violation("I3 a cut counts what it puts in order", f"{cut} of shard {shard} in {index}")

    def _revoked(self, index: int, lease: int, waiting: list[int]) -> None:
        replay = self.replay
        if lease not in replay.live:
            return  # it was given out as due twice, or revoked and due
        del replay.live[lease]
        replay.ended[lease] = replay.lives[lease][-1].ended = index
        left = [k for k, kv in replay.states[replay.revision].items() if kv.lease == lease]
        if left:
            raise Violation("I15 no key hangs on a lease that is gone", f"{lease} in {index}: {left}")
        for revision in waiting:
            self._went(revision, lease)

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
                    raise Violation("I22 a range holds what was counted",
                                    f"{gone}, {count} at {revision}, record {index}")
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
                raise Violation("I15 an effect names a lease that is there",
                                f"{new} at {revision}, record {index}")
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

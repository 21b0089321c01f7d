"""What a store in memory has applied, and how records are applied to it: in the plainest way, with a chain of
hashes over every change, so that two replicas at one order index can be compared at once (I19).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping

from cluster.effects import later_puts, records
from cluster.effects.records import Item, items
from cluster.evaluate.reading.ranges import Fields
from cluster.evaluate.spans import holds
from cluster.features import downgrade, growth
from cluster.features.rows import RowsOf
from cluster.members.table import Host
from cluster.placement import Table
from cluster.placement import changes as placement_changes
from cluster.placement.base import Base
from cluster.placement.table import Move
from cluster.wire.protobuf import read_varint, tombstone, varint
from node.storage import Applied, Position
from tests.sim.disks.order_rows import apply_rows
from tests.sim.moves.order_owned import Left, owns, take

Changes = list[tuple[int, bytes, int, int]]


class Content:
    """Everything that is applied."""

    def __init__(self, shard: int = 0) -> None:
        self.shard = shard
        self.table: Table | None = None  # of placement; None: as in the beginning
        self.left: dict[int, Left] = {}  # by move, what has left this shard and is still here
        self.bases: list[tuple[int, Move, dict[bytes, bytes]]] = []  # revision of the switch, what came
        self.position = Position(0, 0, 0, 1, 0)
        self.keys: list[bytes] = []
        self.versions: dict[bytes, list[tuple[int, int, bytes | None]]] = {}  # revision, sub, KeyValue
        self.changes: list[tuple[int, int, bytes, bytes | None]] = []  # revision, sub, key, KeyValue
        self.leases: dict[int, tuple[int, int]] = {}
        self.metas: dict[str, bytes] = {}
        self.members: dict[int, bytes] = {}
        self.incarnations: dict[int, int] = {}
        self.alarms: set[tuple[int, int]] = set()
        self.layout: tuple[int, int, int] | None = None
        self.chain = 0

    def copy(self) -> Content:
        new = Content(self.shard)
        new.table, new.left, new.bases = self.table, dict(self.left), list(self.bases)
        new.position, new.layout, new.chain = self.position, self.layout, self.chain
        new.keys, new.changes = list(self.keys), list(self.changes)
        new.versions = {k: list(v) for k, v in self.versions.items()}
        new.leases, new.metas, new.members = dict(self.leases), dict(self.metas), dict(self.members)
        new.incarnations, new.alarms = dict(self.incarnations), set(self.alarms)
        return new

    @property
    def base(self) -> Base:
        _, shards, depth = self.layout or (0, 1, 1)
        return Base(shards, depth)

    def digest(self) -> tuple[object, ...]:
        """What must be the same on every replica at this order index (I19)."""
        return self.position, self.chain, self.metas.get("fold", b""), tuple(sorted(self.leases.items()))


def placement_of(content: Content) -> Table:
    return content.table or Table.initial(content.base)


def takes(data: bytes, kind: int, at: int, to: int) -> int:
    """How many revisions an item of a record takes."""
    if kind in (Item.PUT, Item.PUT_NEW, Item.PUT_REF, Item.DELETE, Item.DELETE_RANGE):
        return 1
    if kind == Item.PUTS:
        return len(records.read_puts(data, at, to).keys)
    if kind == Item.PUTS_LATER:
        return len(later_puts.read(data, at, to).keys)
    if kind in (Item.TXN, Item.TXN_LONG):
        return int(to > at)
    return int(kind == Item.LEASE_REVOKE and to > at + records.LEASE_ID.size)


def apply(content: Content, changes: Iterable[tuple[int, bytes, int, int]],
          position: tuple[int, int, int, int], meta: Mapping[str, bytes]) -> Applied:
    """Apply records that have a place; see ``StateStore.apply_changes``."""
    out = Applied(content.position.revision)
    revision, compact = content.position.revision, content.position.compact_revision
    for before, data, pos, sub in changes:
        assert before >= revision or (sub > 0 and before == revision - 1), "I5: revisions only grow"
        revision = before
        if sub >= 0:
            revision += _change(content, out, revision + 1, data, pos, len(data), sub)
            continue
        for kind, at, to in items(data, pos):
            if kind == Item.PUTS:
                revision = _puts(content, out, revision, records.read_puts(data, at, to))
            elif kind == Item.PUTS_LATER:
                revision = _puts(content, out, revision, later_puts.read(data, at, to).at(revision))
            elif kind in (Item.TXN, Item.TXN_LONG):
                revision += _change(content, out, revision + 1, data, at, to, 0)
            elif kind == Item.LEASE_GRANT:
                lease, ttl = records.LEASE.unpack_from(data, at)
                content.leases[lease] = (ttl, 0)
                out.leases.append((Item.LEASE_GRANT, lease, ttl))
            elif kind == Item.LEASE_REVOKE:
                (lease,) = records.LEASE_ID.unpack_from(data, at)
                revision += _change(content, out, revision + 1, data, at + 8, to, 0)
                content.leases.pop(lease, None)
                out.leases.append((Item.LEASE_REVOKE, lease, 0))
            elif kind == Item.LEASE_CHECKPOINT:
                lease, remaining = records.LEASE.unpack_from(data, at)
                if lease in content.leases:
                    content.leases[lease] = (content.leases[lease][0], remaining)
                    out.leases.append((Item.LEASE_CHECKPOINT, lease, remaining))
            elif kind == Item.COMPACT:
                (at_revision,) = records.REVISION.unpack_from(data, at)
                assert at_revision <= revision, "I24: no compaction above the applied revision"
                if at_revision > compact:
                    compact = out.compacted = at_revision
                    before_it = placement_of(content)
                    if (pruned := placement_changes.take_compact(before_it, at_revision)) is not before_it:
                        out.placement = content.table = pruned
                        content.metas["placement"] = pruned.encode()
            elif kind == Item.BOOTSTRAP:
                content.layout = out.bootstrap = records.BOOTSTRAP.unpack_from(data, at)
            elif kind == Item.ALARM:
                raised, alarm, member_id = records.ALARM_BODY.unpack_from(data, at)
                (content.alarms.add if raised else content.alarms.discard)((member_id, alarm))
                out.alarms = True
            elif kind == Item.ROWS:
                apply_rows(content.metas, out, data, at, to)
            elif kind == Item.INCARNATION:
                member_id, incarnation = records.INCARNATION.unpack_from(data, at)
                if content.incarnations.setdefault(member_id, incarnation) == incarnation:
                    out.incarnations.append((member_id, incarnation))
            elif kind == Item.DOWNGRADE:
                content.metas[downgrade.META] = data[at:to]
            elif kind == Item.HOST:
                content.metas[f"host/{Host.decode(data[at:to]).member_id:016x}"] = data[at:to]
                out.hosts.append(data[at:to])
            elif kind == Item.GROWTH:
                level, members = growth.read_item(data, at, to)
                content.metas["growth"] = records.GROWTH_LEVEL.pack(level)
                out.grown.append((level, members, len(out.rows.get(RowsOf.VERSIONS, ()))))
            elif kind in placement_changes.KINDS:
                assert "growth" in content.metas, "G16: no growth before GROWTH"
                out.placement = take(content, data, kind, at, to, revision, position[0])
            elif kind == Item.PUBLISH:
                content.members[read_varint(data[at:to], 1)[0]] = data[at:to]
            else:
                revision += _change(content, out, revision + 1, data, at - records.ITEM.size, to, 0)
    order_index, shard_index, term, new_revision = position
    assert new_revision >= revision, "I5: the fold stands after everything it covers"
    assert order_index > content.position.order_index, "I18: only forward"
    content.metas.update(meta)
    content.position = Position(order_index, shard_index, term, new_revision, compact)
    out.revision = new_revision
    return out


def _puts(content: Content, out: Applied, revision: int, puts: records.Puts) -> int:
    """Puts whose leader knew everything about them, and the revision after them."""
    assert puts.revision == revision + 1, (
        f"C4: revision {puts.revision} evaluated where {revision + 1} is due")
    for key, kv in zip(puts.keys, puts.kvs, strict=True):
        revision += 1
        old, new = _newest(content, key), Fields(kv)
        assert new.mod == revision, f"C4: {key!r} put at {new.mod}, logged as {revision}"
        before = (revision, 0) if old is None else (Fields(old).create, Fields(old).version)
        assert (new.create, new.version) == (before[0], before[1] + 1), (
            f"I22: put of {key!r} onto something else")
        _version(content, out, revision, 0, key, kv)
    assert {
        key for key, kv in zip(puts.keys, puts.kvs, strict=True) if Fields(kv).version == 1
    } == set(puts.new), "I22: new or not?"
    return revision


def _change(content: Content, out: Applied, revision: int, data: bytes, pos: int, end: int, sub: int) -> int:
    """Changes at one revision; whether there were any."""
    if pos == end:
        return 0
    mod = varint(revision)
    place = sub - 1
    for kind, at, to in items(data, pos, end):
        place += 1
        kv: bytes | None = None
        if kind == Item.DELETE_RANGE:
            start, range_end, count = records.read_delete_range(data, at, to)
            found = [key for key in content.keys if holds((start, range_end), key)
                     and _newest(content, key) is not None and owns(content, key, None)]
            assert len(found) == count, (
                f"I22: [{start!r}, {range_end!r}) holds {len(found)} keys, {count} were counted")
            for key in found:
                _version(content, out, revision, place, key, None)
            place += count - 1
            continue
        if kind == Item.DELETE:
            key = data[at:to]
            assert _newest(content, key) is not None, f"I22: a delete of {key!r}, which is not there"
        elif kind == Item.PUT_REF:
            key = records.key_of(data, kind, at, to)
            old = _newest(content, key)
            assert old is not None, f"I22: PUT_REF of {key!r}, which is not there"
            key, kv, lease = records.read_put_ref(data, at, to, Fields(old).create, mod)
        else:
            key, kv, lease = records.read_put(data, kind, at, to, mod)
            old = _newest(content, key)
            assert (old is None) == (kind == Item.PUT_NEW), f"I22: put of {key!r}: new or not?"
        if kv is not None:
            lease = Fields(kv).lease
            assert not lease or lease in content.leases, (
                f"I15: {key!r} hangs on lease {lease}, which is not there")
        _version(content, out, revision, place, key, kv)
    return 1


def _version(content: Content, out: Applied, revision: int, place: int, key: bytes, kv: bytes | None) -> None:
    assert owns(content, key, None), f"G3: {key!r} is written at {revision} in shard {content.shard}"
    if key not in content.versions:
        content.versions[key] = []
        insort(content.keys, key)
    content.versions[key].append((revision, place, kv))
    content.changes.append((revision, place, key, kv))
    content.chain = hash((content.chain, revision, place, key, kv))
    out.events.append(
        (revision, int(kv is None), key, kv if kv is not None else tombstone(key, revision), place))


def _newest(content: Content, key: bytes) -> bytes | None:
    versions = content.versions.get(key)
    return versions[-1][2] if versions else None

"""Order records into rows: the only place where the state changes.

A run of committed records becomes one batch that ends with the position row (I6: position and data in the
same batch; etcd 3.5's corruption came from two). A long run is cut into several batches of
GRAIN.apply_slice_bytes, and only the last carries the position: rows above the position are invisible to
every reader, and writing them again after a crash changes nothing (review (b) Visibility).

That holds of rows that name a revision. All others (leases, attachments, members, alarms) would show at once,
so they are kept back for the last batch (``Run.late``): whoever looks between two slices, or after a crash
between them, finds them at the position. A compaction reads what key hangs on what lease there, a hash and a
check of leases, too.

Hot path: see the figure in ``state``. One tight loop; a put costs a struct, two joins and one batch row.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rocksdict import WriteBatch

from cluster.effects import later_puts
from cluster.effects.records import (
    ITEM,
    LEASE,
    LEASE_ID,
    PUT_HEAD,
    REVISION,
    Item,
    key_of,
    key_offset,
    read_put,
    read_put_ref,
    read_puts,
)
from cluster.faults import faults
from cluster.features.rows import Row
from cluster.grain import GRAIN
from cluster.order.log import revisions_of
from cluster.order.sound import UnsoundItem
from cluster.wire.protobuf import tombstone, varint
from node.storage import keys
from node.storage.keys import ENTRY, LEASE_KEY, LEASE_VALUE, MAX32, MAX64, RUN, SUFFIX, Position
from node.storage.state.changes.at_once import some_changes
from node.storage.state.changes.deletes import (
    LONG_KINDS,
    delete_range,
    has_many,
    is_enough,
    is_long,
    long_item,
    pause,
)
from node.storage.state.changes.deletes import changes as changes_in_slices
from node.storage.state.changes.late import PreparedRows, apply_prepared_rows, late_item
from node.storage.state.changes.puts import (
    PreparedPuts,
    apply_later,
    apply_prepared,
    apply_puts,
    events_of,
    remember,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cluster.effects.later_puts import LaterPuts
    from node.storage.state.store import StateStore


# revision, type (0 PUT, 1 DELETE), key, KeyValue, place in the revision
Event = tuple[int, int, bytes, bytes, int]


@dataclass(slots=True)
class Applied:
    """What a run of records did, in order, for those who must be told."""

    revision: int
    events: list[Event] = field(default_factory=list)
    # LEASE_GRANT, LEASE_REVOKE or LEASE_CHECKPOINT; lease; its TTL, 0, what remains of it (0: cleared). In
    # their order: an ID that was revoked may be granted again in the same run
    leases: list[tuple[Item, int, int]] = field(default_factory=list)
    compacted: int | None = None  # the highest compaction revision of the run
    published: list[bytes] = field(default_factory=list)  # etcdserverpb.Member in wire form
    bootstrap: tuple[int, int, int] | None = None  # layout version, shard count, placement depth
    # deleted spans: first key, logged, found
    miscounted: list[tuple[bytes, int, int]] = field(default_factory=list)
    alarms: bool = False  # some were raised or disarmed
    rows: dict[int, list[Row]] = field(default_factory=dict)  # of features, as they were written
    # member, incarnation: those that are new
    incarnations: list[tuple[int, int]] = field(default_factory=list)
    hosts: list[bytes] = field(default_factory=list)  # rows of the table of members (cluster.members.table)

    @property
    def revoked(self) -> list[int]:
        """Leases that were revoked."""
        return [lease for kind, lease, _ in self.leases if kind == Item.LEASE_REVOKE]

    @property
    def decided(self) -> list[int]:
        """The leases that keep-alives may wait for: they are gone, or their checkpoints cleared."""
        return [lease for kind, lease, seconds in self.leases if kind != Item.LEASE_GRANT and not seconds]


class Run:
    """One apply call: the batch being filled and where the fold stands."""

    __slots__ = (
        "attached", "batch", "born", "compact", "created", "died", "events", "first", "late", "leases",
        "long", "out", "pending", "revision", "run", "run_bytes", "store")

    def __init__(self, store: StateStore, out: Applied, events: list[Event] | None) -> None:
        self.store = store
        self.out = out
        self.events = events
        self.batch = WriteBatch(raw_mode=True)
        self.pending = 0  # bytes in the batch, roughly
        self.revision = store.position.revision
        self.compact = store.position.compact_revision
        self.run: list[bytes] = []  # of the r row being filled
        self.run_bytes = 0
        self.first = (0, 0)  # revision, sub of that row's first change
        # rows without a revision, for the last batch: their values, None where one goes
        self.late: dict[bytes, bytes | None] = {}
        # the same by lease, for what comes later in the run: rows of its keys, its TTL
        self.attached: dict[int, list[bytes]] = {}
        self.leases: dict[int, int | None] = {}
        # keys created by this call, with their revision, where a later put may refer to it (PUT_REF)
        self.created: dict[bytes, int] | None = None
        self.born: list[bytes] = []  # keys that came and went: for the counts
        self.died: list[bytes] = []
        self.long = False  # it deletes a span or changes much: it is applied in slices (see ``deletes``)

    def change(self, data: bytes, kind: int, pos: int, end: int, sub: int, mod: bytes) -> None:
        """One put or delete at the current revision."""
        revision = self.revision
        cache = self.store.cache
        forget = cache.values.pop
        if kind <= Item.PUT_NEW or kind == Item.PUT_REF:
            if kind == Item.PUT_REF:
                key, kv, lease = self.refer(data, pos, end, mod)
            else:
                key, kv, lease = read_put(data, kind, pos, end, mod)
            if kind == Item.PUT_NEW:
                self.born.append(key)
                if self.created is not None:
                    self.created[key] = revision
            tag = keys.PUT
            forget(key, None)
            cache.put(key, kind == Item.PUT_NEW, revision, lease)
            if lease:
                self.attach(lease, key)
        elif kind == Item.DELETE:
            key = data[pos:end]
            kv = tombstone(key, revision)
            tag = keys.DELETE
            forget(key, None)
            cache.delete(key)
            self.died.append(key)
        else:
            raise ValueError(f"item of kind {kind} inside a transaction")
        self.batch.put(b"k" + keys.escape(key) + SUFFIX.pack(0, MAX64 - revision, MAX32 - sub, tag), kv)
        if not self.run:
            self.first = (revision, sub)
        self.run.append(ENTRY.pack(revision - self.first[0], sub, tag, len(key)) + key)
        self.run_bytes += len(key)
        self.pending += len(kv) + 2 * len(key)
        if self.events is not None:
            self.events.append((revision, tag, key, kv, sub))
        if len(self.run) >= GRAIN.run_entries or self.run_bytes >= keys.RUN_BYTES:
            self.end_run()

    def refer(self, data: bytes, pos: int, end: int, mod: bytes) -> tuple[bytes, bytes, int]:
        """A put whose creation was not in order when it was logged: it is by now."""
        key = key_of(data, Item.PUT_REF, pos, end)
        create = self.created.get(key) if self.created is not None else None
        if create is None:
            before = self.store.peek(key)
            assert before is not None, "I22: PUT_REF of a key that is not there"
            create = before.create
        return read_put_ref(data, pos, end, create, mod)

    def changes(self, data: bytes, pos: int, end: int, sub: int = 0) -> int:
        """Several changes at one revision, in their order; none takes no revision. ``sub``: place of the
        first. Answers how many they are."""
        if pos == end:
            return 0
        self.revision += 1
        stop, after = some_changes(self, data, pos, end, sub, keys.MAX32)
        if stop < end:
            raise ValueError(f"item of kind {data[stop]} inside a transaction")
        return after - sub

    def end_run(self) -> None:
        """Write the r row that was being filled."""
        if self.run:
            self.batch.put(RUN.pack(b"r", *self.first), b"".join(self.run))
            self.run = []
            self.run_bytes = 0

    def write_slice(self) -> None:
        """Write what there is, without a position: invisible until the run's last batch. The r row being
        filled stays open, so that its bounds depend on the record alone (I19)."""
        self.note_above(self.batch)
        self.store.write(self.batch)
        self.batch = WriteBatch(raw_mode=True)
        self.pending = 0

    def note_above(self, batch: WriteBatch) -> None:
        """A slice goes before the position: a process that dies before the last one leaves its rows, and the
        next must know."""
        if self.revision > self.store.above:
            self.store.above = self.revision
            batch.put(keys.ABOVE_ROW, self.revision.to_bytes(8, "big"))

    def begin_long(self) -> None:
        """Others look at the store before this call has ended: what speaks of its position stands still."""
        if not self.long:
            self.long = True
            self.store.cache.suspend()
            self.store.counts.hold()

    def take_events(self) -> list[Event]:
        """The events since the last time."""
        if self.events is None:
            return []
        events, self.events = self.events, []
        self.out.events = self.events
        return events

    def attach(self, lease: int, key: bytes) -> None:
        """A key is put that names a lease."""
        row = LEASE_KEY.pack(b"l", lease) + key
        self.late[row] = b""
        self.attached.setdefault(lease, []).append(row)

    def control(self, data: bytes, kind: int, pos: int, end: int) -> None:
        """Everything but puts and deletes."""
        late, out = self.late, self.out
        if kind == Item.TXN:
            self.changes(data, pos, end)
        elif kind == Item.LEASE_GRANT:
            lease, ttl = LEASE.unpack_from(data, pos)
            late[LEASE_KEY.pack(b"L", lease)] = LEASE_VALUE.pack(ttl, 0)
            self.leases[lease] = ttl
            out.leases.append((Item.LEASE_GRANT, lease, ttl))
        elif kind == Item.LEASE_REVOKE:
            (lease,) = LEASE_ID.unpack_from(data, pos)
            self.changes(data, pos + LEASE_ID.size, end)
            self.revoked(lease)
        elif kind == Item.LEASE_CHECKPOINT:
            lease, remaining = LEASE.unpack_from(data, pos)
            ttl = self.leases.get(lease, -1)
            if ttl == -1:
                known = self.store.lease(lease)
                ttl = known[0] if known else None
            if ttl is not None:  # else revoked before, in a batch of which only slices were written
                late[LEASE_KEY.pack(b"L", lease)] = LEASE_VALUE.pack(ttl, remaining)
                out.leases.append((Item.LEASE_CHECKPOINT, lease, remaining))
        elif kind == Item.COMPACT:
            (revision,) = REVISION.unpack_from(data, pos)
            if revision > self.revision:  # I24; so it is at every replica, at this place of the order
                faults.met(
                    "applying a record",
                    UnsoundItem(f"a compaction at {revision}, where the revision is {self.revision}"),
                )
            elif revision > self.compact:
                self.compact = revision
                out.compacted = revision
        elif kind == Item.SKIP:
            self.end_run()  # its entries tell their revisions by 32 bits
            self.revision += revisions_of(data, kind, pos, end)
        elif not late_item(self, data, kind, pos, end):
            raise ValueError(f"unknown item of kind {kind}")

    def revoked(self, lease: int) -> None:
        """A lease has ended; its keys are gone."""
        # single deletes: a range delete per lease would slow down every later iterator
        self.late.update(dict.fromkeys((*self.store.attachment_rows(lease), *self.attached.pop(lease, ()))))
        self.late[LEASE_KEY.pack(b"L", lease)] = None
        self.leases[lease] = None
        self.out.leases.append((Item.LEASE_REVOKE, lease, 0))

    def effects(self, data: bytes, pos: int) -> int:
        """The items of one record from ``pos`` on; returns where it stopped: at the end, or at an item that
        is to be applied in slices. Hot path."""
        run, events = self, self.events
        hot, cold = self.store.cache.hot, self.store.cache.cold
        cache_put = self.store.cache.put
        forget = self.store.cache.values.pop
        put = run.batch.put
        revision = run.revision
        created, born = run.created, run.born.append
        unpack_put, pack_suffix, pack_entry = PUT_HEAD.unpack_from, SUFFIX.pack, ENTRY.pack
        run_entries, run_bytes = GRAIN.run_entries, keys.RUN_BYTES
        end = len(data)
        entries = run.run
        first = run.first[0]  # a long item before may have left its row open
        while pos < end:
            kind = data[pos]
            if not 0 < kind < 3:
                run.revision = revision
                if kind in LONG_KINDS and is_long(data, kind, pos):
                    break
                length = ITEM.unpack_from(data, pos)[1]
                pos += 5
                if pos + length > end:
                    raise ValueError("a record is cut short")
                if kind == 19:
                    apply_puts(run, read_puts(data, pos, pos + length))
                elif kind == 20:
                    apply_later(run, later_puts.read(data, pos, pos + length))
                elif kind == 3 or kind == 14:
                    run.revision += 1
                    run.change(data, kind, pos, pos + length, 0, varint(run.revision))
                else:
                    run.control(data, kind, pos, pos + length)
                pos += length
                put, entries, first, revision = run.batch.put, run.run, run.first[0], run.revision
                continue
            # A put of its own: ``run.change`` in line.
            _, length, key_len, head_len, lease = unpack_put(data, pos)
            body_end = pos + 5 + length
            if body_end > end:
                raise ValueError("a record is cut short")
            pos += 21
            head_end = pos + head_len
            revision += 1
            mod = varint(revision)
            key_at = pos + (2 if key_len < 0x80 else key_offset(key_len))
            key = data[key_at : key_at + key_len]
            if kind == 1:
                kv = b"".join((data[pos:head_end], b"\x18", mod, data[head_end:body_end]))
            else:
                kv = b"".join((data[pos:head_end], b"\x10", mod, b"\x18", mod, data[head_end:body_end]))
                born(key)
                if created is not None:
                    created[key] = revision
            pos = body_end
            forget(key, None)
            if key in hot or key in cold:
                cache_put(key, kind == 2, revision, lease)
            escaped = key.replace(b"\0", b"\0\xff") if b"\0" in key else key
            put(b"k" + escaped + pack_suffix(0, MAX64 - revision, MAX32, 0), kv)
            if not entries:
                first = revision
                run.first = (revision, 0)
            entries.append(pack_entry(revision - first, 0, 0, key_len) + key)
            run.run_bytes += key_len
            if lease:
                run.attach(lease, key)
            if events is not None:
                events.append((revision, 0, key, kv, 0))
            if len(entries) >= run_entries or run.run_bytes >= run_bytes:
                run.end_run()
                entries = run.run
        if run.run:
            run.end_run()
        run.revision = revision
        run.wrote(pos)
        return pos

    def wrote(self, size: int) -> None:
        """So much of a record is in the batch."""
        self.pending += size
        if self.pending > GRAIN.apply_slice_bytes:
            self.write_slice()

    def finish(self, new: Position, meta: Mapping[str, bytes] | None) -> Applied:
        """Write the batch, position and all (I6)."""
        store, batch, out = self.store, self.batch, self.out
        position = store.position
        if meta:
            for name, value in meta.items():
                batch.put(b"m" + name.encode(), value)
        out.revision = new.revision
        assert new.revision >= position.revision >= position.compact_revision, f"I24: {new} after {position}"
        assert new.order_index > position.order_index or new == position, f"I18: {new} after {position}"
        assert not self.run  # every change of the batch is in an r row
        for row, known in self.late.items():
            if known is None:
                batch.delete(row)
            else:
                batch.put(row, known)
        batch.put(keys.POSITION_ROW, keys.POSITION.pack(*new))  # I6: in the batch of the data it describes
        if store.above and new.revision >= store.above:
            batch.delete(keys.ABOVE_ROW)
            store.above = 0
        store.write(batch)
        store.position = new
        if self.born or self.died:
            store.counts.changed(self.born, self.died)
        if self.long:
            store.counts.release()
            store.cache.resume()
        return out


Applying = Generator[list[Event], None, Applied]
Prepared = PreparedPuts | PreparedRows
Evaluated = Callable[[int, int], Prepared | None]  # what is known already of the record at an index and term


def nothing_evaluated(index: int, term: int) -> None:
    """Of no record: all are read."""
    return None


def apply_records(
    store: StateStore,
    records: Iterable[tuple[int, int, bytes]],
    want_events: bool,
    meta: Mapping[str, bytes] | None,
    evaluated: Evaluated,
) -> Applying:
    """See :meth:`StateStore.apply_slices`."""
    position = store.position
    index, term = position.shard_index, position.term
    out = Applied(position.revision)
    run = Run(store, out, out.events if want_events else None)
    for at, term, data in records:
        if at != index + 1:
            raise ValueError(f"record {at} applied after {index}")
        index = at
        if data and (prepared := evaluated(at, term)) is not None:
            if isinstance(prepared, PreparedRows):
                apply_prepared_rows(run, prepared)
                continue
            apply_prepared(run, prepared)
            run.wrote(len(data))
            continue
        done = run.effects(data, 0)
        if done < len(data):
            yield from _rest(run, data, done)
    return run.finish(Position(index, index, term, run.revision, run.compact), meta)


def apply_alone(store: StateStore, prepared: Prepared, index: int, term: int, want_events: bool) -> Applied:
    """One record of nothing but plain puts, or rows of one feature, at the leader that made it, while no run
    of records is under way: what :func:`apply_records` comes to, without its generality, which a lone client
    would wait for."""
    position = store.position
    if isinstance(prepared, PreparedRows):
        assert index == position.shard_index + 1, "I18: only forward, entry by entry"
        new = Position(index, index, term, position.revision, position.compact_revision)
        prepared.batch.put(keys.POSITION_ROW, keys.POSITION.pack(*new))  # I6, as below
        store.write(prepared.batch)
        store.position = new
        return Applied(new.revision, rows={prepared.feature: prepared.rows})
    puts = prepared.puts
    revision = position.revision + len(puts.keys)
    assert index == position.shard_index + 1, "I18: only forward, entry by entry"
    assert puts.revision == position.revision + 1, (
        "C4: the leader of shard 0 knew the revisions when it evaluated"
    )
    new = Position(index, index, term, revision, position.compact_revision)
    # I6: in the batch of the data it describes
    prepared.batch.put(keys.POSITION_ROW, keys.POSITION.pack(*new))
    store.write(prepared.batch)
    store.position = new
    if puts.new:
        store.counts.changed(puts.new, ())
    remember(store.cache, puts)
    return Applied(revision, events_of(puts) if want_events else [])


def _rest(run: Run, data: bytes, pos: int) -> Iterator[list[Event]]:
    """A record from an item on that is applied in slices."""
    end = len(data)
    while pos < end:
        yield from long_item(run, data, pos)
        pos = run.effects(data, pos + ITEM.size + ITEM.unpack_from(data, pos)[1])


def apply_changes(
    store: StateStore,
    changes: Iterable[tuple[int, bytes, int, int]],
    position: tuple[int, int, int, int],
    want_events: bool,
    meta: Mapping[str, bytes] | None,
    evaluated: Mapping[int, LaterPuts],
) -> Applying:
    """See :meth:`StateStore.apply_changes_slices`."""
    out = Applied(store.position.revision)
    run = Run(store, out, out.events if want_events else None)
    run.created = {}
    changed, at_revision = 0, -1  # changes at this revision since it began, or since the last pause
    for place, (before, data, at, sub) in enumerate(changes):
        # a multi's changes at one revision may come in several parts, those of other shards between them
        assert before >= run.revision or (sub > 0 and before == run.revision - 1), "I5: revisions only grow"
        run.revision = before
        if sub >= 0 and data[at] == Item.DELETE_RANGE:  # a part of a multi: nothing else is in it
            run.revision += 1
            yield from delete_range(run, data, at + ITEM.size, len(data), sub)
        elif sub >= 0:
            if has_many(data, at, len(data)):
                yield from changes_in_slices(run, data, at, len(data), sub)
                changed = 0
            else:
                changed *= at_revision == before + 1
                changed += run.changes(data, at, len(data), sub)
            run.end_run()
            at_revision = run.revision
            if is_enough(run, changed):  # in very many parts
                yield pause(run)
                changed = 0
        elif (puts := evaluated.get(place)) is not None:
            apply_later(run, puts)
            run.wrote(len(data))
        else:
            done = run.effects(data, at)
            if done < len(data):
                yield from _rest(run, data, done)
    order_index, shard_index, term, revision = position
    assert revision >= run.revision, "I5: the fold stands after everything it covers"
    return run.finish(Position(order_index, shard_index, term, revision, run.compact), meta)


def drained(applying: Applying) -> Applied:
    """The whole of an apply, at once."""
    events: list[Event] = []
    while True:
        try:
            events += next(applying)
        except StopIteration as done:
            applied: Applied = done.value
            applied.events[:0] = events
            return applied

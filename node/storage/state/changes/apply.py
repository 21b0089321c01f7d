"""Order records into rows: the only place where the state changes.

A run of committed records becomes one batch that ends with the position row (I6: position and data in one
batch; etcd 3.5's corruption came from two). A long run is cut into batches of GRAIN.apply_slice_bytes, and
only the last carries the position: readers ignore rows above it, and writing them again after a crash changes
nothing (review (b) Visibility).

Rows that name no revision (leases, attachments, members, alarms) would show at once, so they wait for the
last batch (``Run.late``): compactions, hashes and lease checks read them at the position.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from cluster.effects import later_puts
from cluster.effects.records import (
    ITEM,
    LEASE,
    LEASE_ID,
    PUT_HEAD,
    REVISION,
    Item,
    key_offset,
    read_puts,
)
from cluster.faults import faults
from cluster.grain import GRAIN
from cluster.order.log import revisions_of
from cluster.order.sound import UnsoundItem
from cluster.wire.protobuf import varint
from node.storage import keys
from node.storage.keys import ENTRY, LEASE_KEY, LEASE_VALUE, MAX32, MAX64, SUFFIX, Position
from node.storage.state.changes.at_once import ALL, some_changes
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
from node.storage.state.changes.late import PreparedRows, apply_prepared_rows, compacted, late_item
from node.storage.state.changes.puts import (
    PreparedPuts,
    apply_later,
    apply_prepared,
    apply_puts,
    events_of,
    large_of,
    remember,
)
from node.storage.state.changes.run import Applied, Event, Run
from node.storage.state.reads import LARGE_ROW
from node.storage.state.versions import Versions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cluster.effects.later_puts import LaterPuts
    from node.storage.state.moving.staged import Switched


class Fold(Run):
    """A run that takes records in."""

    __slots__ = ()

    def changes(self, data: bytes, pos: int, end: int, sub: int = 0) -> int:
        """Changes at one revision, in their order; none takes no revision. ``sub``: place of the first.
        Returns their number."""
        if pos == end:
            return 0
        self.revision += 1
        stop, after = some_changes(self, data, pos, end, sub, ALL)
        if stop < end:
            raise ValueError(f"item of kind {data[stop]} inside a transaction")
        return after - sub

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
                    UnsoundItem(f"a compaction at {revision}, where the revision is {self.revision}"))
            elif revision > self.compact:
                self.compact = revision
                compacted(self, revision)
                out.compacted = revision
        elif kind == Item.SKIP:
            self.end_run()  # its entries tell their revisions by 32 bits
            self.revision += revisions_of(data, kind, pos, end)
        elif not late_item(self, data, kind, pos, end):
            raise ValueError(f"unknown item of kind {kind}")

    def effects(self, data: bytes, pos: int) -> int:
        """The items of one record from ``pos`` on. Returns where it stopped: at the end, or at an item that
        is to be applied in slices. Hot path."""
        run, end = self, len(data)
        while pos < end:
            kind = data[pos]
            if 0 < kind < 3:
                pos = run.single_puts(data, pos, end)
                continue
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
        if run.run:
            run.end_run()
        run.wrote(pos)
        return pos

    def single_puts(self, data: bytes, pos: int, end: int) -> int:
        """The PUT and PUT_NEW items from ``pos`` on: ``change`` in line. Returns where they end."""
        run, events = self, self.events
        hot, cold = self.store.cache.hot, self.store.cache.cold
        cache_put = self.store.cache.put
        forget = self.store.cache.values.pop
        put = run.batch.put
        revision = run.revision
        created, born = run.created, run.born.append
        unpack_put, pack_suffix, pack_entry = PUT_HEAD.unpack_from, SUFFIX.pack, ENTRY.pack
        run_entries, run_bytes = GRAIN.run_entries, keys.RUN_BYTES
        entries = run.run
        first = run.first[0]  # an item before may have left its row open
        while pos < end:
            kind = data[pos]
            if not 0 < kind < 3:
                break
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
            if length >= LARGE_ROW:
                run.large.append((key, length))
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
        run.revision = revision
        return pos

    def wrote(self, size: int) -> None:
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
        left = [gone._replace(order_index=new.order_index) for gone in self.left]
        for gone in left:
            batch.put(keys.left_row(gone.number), gone.encode())
        batch.put(keys.POSITION_ROW, keys.POSITION.pack(*new))  # I6: in the batch of the data it describes
        if store.above and new.revision >= store.above:
            batch.delete(keys.ABOVE_ROW)
            store.above = 0
        store.write(batch)
        store.position = new
        counted = self._counted()
        self._count(counted)
        if self.long:
            store.counts.release()
            store.cache.resume()
        if out.placement is not None:
            store.left.update((gone.number, gone) for gone in left)
            if self._came:
                store.staged = None  # the copy counts; another move here may have begun behind it
            store.place(out.placement, bool(self.switched), counted)
        return out

    def _count(self, counted: Switched | None) -> None:
        """What the run changes, by what was shown before its switch: blocks may be cut here."""
        born, died = self.born, self.died
        if counted is not None and self._came:  # in the copy's figure
            born, died = counted.beside(born), counted.beside(died)
        if born or died or self.large:
            self.store.counts.changed(born, died, self.large)

    @property
    def _came(self) -> bool:
        """Whether a copy counts from this run on."""
        return self.store.staged is not None and self.late.get(keys.STAGING_ROW, b"") is None

    def _counted(self) -> Switched | None:
        """What the run gives or takes, with what it changes there itself; None: it is to be counted."""
        if len(self.switched) != 1 or self.long:
            return None
        (switched,) = self.switched
        if not self._came:
            return switched  # a source's
        came = [len(changed) - len(switched.beside(changed)) for changed in (self.born, self.died)]
        return switched._replace(live=switched.live + came[0] - came[1])


Applying = Generator[list[Event], None, Applied]
Prepared = PreparedPuts | PreparedRows
Evaluated = Callable[[int, int], Prepared | None]  # what is known already of the record at an index and term


def nothing_evaluated(index: int, term: int) -> None:
    return None


def apply_records(
    store: Versions, records: Iterable[tuple[int, int, bytes]], want_events: bool,
    meta: Mapping[str, bytes] | None, evaluated: Evaluated,
) -> Applying:
    """See :meth:`StateStore.apply_slices`."""
    position = store.position
    index, term = position.shard_index, position.term
    out = Applied(position.revision)
    run = Fold(store, out, out.events if want_events else None)
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


def apply_alone(store: Versions, prepared: Prepared, index: int, term: int, want_events: bool) -> Applied:
    """:func:`apply_records` for one prepared record at the leader that made it, faster for a lone client."""
    position = store.position
    assert index == position.shard_index + 1, "I18: only forward, entry by entry"
    revision = position.revision
    if isinstance(prepared, PreparedPuts):
        assert prepared.puts.revision == revision + 1, (
            "C4: the leader of shard 0 knew the revisions when it evaluated")
        revision += len(prepared.puts.keys)
    new = Position(index, index, term, revision, position.compact_revision)
    # I6: in the batch of the data it describes
    prepared.batch.put(keys.POSITION_ROW, keys.POSITION.pack(*new))
    store.write(prepared.batch)
    store.position = new
    if isinstance(prepared, PreparedRows):
        return Applied(revision, rows={prepared.feature: prepared.rows})
    puts = prepared.puts
    large = large_of(puts)
    if puts.new or large:
        store.counts.changed(puts.new, (), large)
    remember(store.cache, puts)
    return Applied(revision, events_of(puts) if want_events else [])


def _rest(run: Fold, data: bytes, pos: int) -> Iterator[list[Event]]:
    """A record from an item on that is applied in slices."""
    end = len(data)
    while pos < end:
        yield from long_item(run, data, pos)
        pos = run.effects(data, pos + ITEM.size + ITEM.unpack_from(data, pos)[1])


def apply_changes(
    store: Versions, changes: Iterable[tuple[int, bytes, int, int]], position: tuple[int, int, int, int],
    want_events: bool, meta: Mapping[str, bytes] | None, evaluated: Mapping[int, LaterPuts],
) -> Applying:
    """See :meth:`StateStore.apply_changes_slices`."""
    out = Applied(store.position.revision)
    run = Fold(store, out, out.events if want_events else None)
    run.created = {}
    # changes at this revision, and their bytes, since it began, or since the last pause
    changed, size, at_revision = 0, 0, -1
    for place, (before, data, at, sub) in enumerate(changes):
        # a multi's changes at one revision may come in several parts, with other shards' between them
        assert before >= run.revision or (sub > 0 and before == run.revision - 1), "I5: revisions only grow"
        run.revision = before
        if sub >= 0 and data[at] == Item.DELETE_RANGE:  # a part of a multi: nothing else is in it
            run.revision += 1
            yield from delete_range(run, data, at + ITEM.size, len(data), sub)
        elif sub >= 0:
            if has_many(data, at, len(data)):
                yield from changes_in_slices(run, data, at, len(data), sub)
                changed = size = 0
            else:
                if at_revision != before + 1:
                    changed = size = 0
                changed += run.changes(data, at, len(data), sub)
                size += len(data) - at
            run.end_run()
            at_revision = run.revision
            if is_enough(run, changed, size):  # in very many parts
                yield pause(run)
                changed = size = 0
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
    events: list[Event] = []
    while True:
        try:
            events += next(applying)
        except StopIteration as done:
            applied: Applied = done.value
            applied.events[:0] = events
            return applied

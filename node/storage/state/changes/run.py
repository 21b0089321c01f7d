"""One apply call: the batch that it fills, and what it has done so far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from rocksdict import WriteBatch

from cluster.effects.records import Item, key_of, read_put, read_put_ref
from cluster.features.rows import Row
from cluster.grain import GRAIN
from cluster.placement import Owned, Table
from cluster.wire.protobuf import tombstone
from node.storage import keys
from node.storage.keys import ENTRY, LEASE_KEY, MAX32, MAX64, RUN, SUFFIX
from node.storage.state.moving.staged import Left, Switched
from node.storage.state.reads import LARGE_ROW
from node.storage.state.versions import Versions

# revision, type (0 PUT, 1 DELETE), key, KeyValue, place in the revision
Event = tuple[int, int, bytes, bytes, int]

# of a lease's rows that go with it: they are in the last batch, which is one turn of every replica. 20,000
# rows of short names, or 1,900 of 1 KB each, take 10 to 40 ms
_ENDED_BYTES = 2 << 20
_ROW_BYTES = 64  # what a row costs besides its own


@dataclass(slots=True)
class Applied:
    """What a run of records did, in order."""

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
    # new ones: member, incarnation
    incarnations: list[tuple[int, int]] = field(default_factory=list)
    # level of the data, its members, and how many of the run's rows of VERSIONS stand before
    grown: list[tuple[int, list[int], int]] = field(default_factory=list)
    placement: Table | None = None  # the newest one, if it has changed
    hosts: list[bytes] = field(default_factory=list)  # rows of the table of members (cluster.members.table)

    @property
    def revoked(self) -> list[int]:
        return [lease for kind, lease, _ in self.leases if kind == Item.LEASE_REVOKE]

    @property
    def decided(self) -> list[int]:
        """Leases whose keep-alives may be answered: they are gone, or their checkpoints cleared."""
        return [lease for kind, lease, seconds in self.leases if kind != Item.LEASE_GRANT and not seconds]


class Run:
    """One apply call: the batch being filled and where the fold stands."""

    __slots__ = (
        "attached", "batch", "born", "compact", "created", "died", "events", "first", "large", "late",
        "leases", "left", "long", "out", "owned", "pending", "revision", "run", "run_bytes", "store",
        "switched")

    def __init__(self, store: Versions, out: Applied, events: list[Event] | None) -> None:
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
        self.owned: Owned | None = store.owned  # G6, at this place of the order
        self.switched: list[Switched] = []  # what the run gives or takes
        self.left: list[Left] = []  # moves away from here that switch in it
        # the same by lease, for what comes later in the run: rows of its keys, its TTL
        self.attached: dict[int, list[bytes]] = {}
        self.leases: dict[int, int | None] = {}
        # keys created by this call, with their revision, where a later put may refer to it (PUT_REF)
        self.created: dict[bytes, int] | None = None
        self.born: list[bytes] = []  # keys that came and went: for the counts
        self.died: list[bytes] = []
        self.large: list[tuple[bytes, int]] = []  # keys that get large values, with their bytes
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
            if len(kv) >= LARGE_ROW:
                self.large.append((key, len(kv)))
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

    def end_run(self) -> None:
        if self.run:
            self.batch.put(RUN.pack(b"r", *self.first), b"".join(self.run))
            self.run = []
            self.run_bytes = 0

    def write_slice(self) -> None:
        """Write the batch without a position. The r row being filled stays open: its bounds depend on the
        record alone (I19)."""
        self.note_above(self.batch)
        self.store.write(self.batch)
        self.batch = WriteBatch(raw_mode=True)
        self.pending = 0

    def note_above(self, batch: WriteBatch) -> None:
        """The next start must know of rows that a crash leaves above the position."""
        if self.revision > self.store.above:
            self.store.above = self.revision
            batch.put(keys.ABOVE_ROW, self.revision.to_bytes(8, "big"))

    def begin_long(self) -> None:
        """Other parts look at the store before this call ends: counts and cache stand still."""
        if not self.long:
            self.long = True
            self.store.cache.suspend()
            self.store.counts.hold()

    def take_events(self) -> list[Event]:
        if self.events is None:
            return []
        events, self.events = self.events, []
        self.out.events = self.events
        return events

    def attach(self, lease: int, key: bytes) -> None:
        row = LEASE_KEY.pack(b"l", lease) + key
        self.late[row] = b""
        self.attached.setdefault(lease, []).append(row)

    def revoked(self, lease: int) -> None:
        """A lease has ended; its keys are gone. Of very many rows some stay, as of keys that left their
        lease: what reads them looks at the key, and a compaction or a lease check removes them."""
        # single deletes: a range delete per lease would slow down every later iterator
        rows: Iterable[bytes] = self.store.attachment_rows(lease)
        if (owned := self.owned) is not None and owned.staged is not None:
            # a copy follows its source, which may have applied more: a later lease of this ID
            rows = (row for row in rows if not owned.stages(row[LEASE_KEY.size :]))
        left = _ENDED_BYTES
        for row in rows:
            self.late[row] = None
            left -= len(row) + _ROW_BYTES
            if left < 0:
                break
        self.late.update(dict.fromkeys(self.attached.pop(lease, ())))  # not written yet: none may stay
        self.late[LEASE_KEY.pack(b"L", lease)] = None
        self.leases[lease] = None
        self.out.leases.append((Item.LEASE_REVOKE, lease, 0))

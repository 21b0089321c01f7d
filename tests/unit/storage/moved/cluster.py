"""The stores of some shards, with keys that move between them, beside one naive store of all keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

from cluster.effects import records
from cluster.effects.records import items
from cluster.evaluate.reading.ranges import RangeRead, RowSource
from cluster.features import growth
from cluster.features.rows import RowsOf, encode
from cluster.order.moving.copier import Answer, Copier
from cluster.pb import rpc_pb2
from cluster.placement import Table, changes
from cluster.placement.base import Base
from cluster.placement.changes import Moved, move_item, moved_item, shard_item
from cluster.placement.table import END, Move, State
from node.backup.rows import Checkpoint
from node.storage import StateStore
from node.storage.state.moving.staged import Staged
from node.storage.state.moving.staging import (
    Bounds,
    answer,
    bare_left,
    begin_copy,
    drop_left,
    drop_span,
    stage,
)
from tests.unit.storage.model import Model
from tests.unit.storage.state.stores import history

KEYS = sorted(
    [bytes((letter, digit)) for letter in b"abcdef" for digit in b"/1"] + [b"a/x", b"c/\0", b"f\xff"])
BOUNDS = [b"\0", *KEYS, b"b", b"c0"]
SHARDS, BASE = 4, 2
LEASES = (7, 8)
SMALL = {"block_cache_bytes": 1 << 20, "write_buffer_bytes": 1 << 20}


class Cluster:
    """Each record is applied at every shard, as the order is; ``hosts`` copy in pages of their own sizes."""

    def __init__(self, root: Path, seed: int, hosts: int = 2) -> None:
        self.random = Random(seed)
        self.model = Model()
        self.root = root
        self.hosts = range(hosts)
        self.stores = {
            (host, shard): self.open(host, shard) for host in self.hosts for shard in range(SHARDS)}
        self.index = 0
        self.table = Table.initial(Base(BASE, 1))
        self.moves = self.switched = 0
        self.copiers: dict[int, Copier] = {}  # of each host
        self.lists: list[Iterator[None]] = []  # of leases' keys, that are being made
        self.steps = Random(seed)
        self.reads: list[tuple[RangeRead, RowSource, list[bytes]]] = []  # under way, with the right rows
        self.grown()

    def open(self, host: int, shard: int) -> StateStore:
        return StateStore.open(self.root / f"{host}-{shard}", shard=shard, **SMALL)

    def grown(self) -> None:
        said = records.rows(encode(RowsOf.VERSIONS, [growth.row(1, growth.OWN.encode())]))
        self.control(records.bootstrap(1, BASE, 1) + said + growth.item(1, (1,)))
        for shard in range(BASE, SHARDS):
            self.place(shard_item(shard, State.FORMING, shard, (1,)))
            self.place(shard_item(shard, State.SERVING))
        for lease in LEASES:
            self.control(self.model.grant(lease, 60))

    def check_backup(self) -> None:
        """Closed: each version that is left comes out of one shard."""
        model, compacted = self.model, self.model.compact_revision
        wanted = []
        for versions in model.versions.values():
            old = [version for version in versions if version.revision <= compacted]
            wanted += [version for version in versions if version.revision > compacted]
            wanted += [version for version in old[-1:] if version.version or version.revision == compacted]
        found = []
        for shard in range(SHARDS):
            checkpoint = Checkpoint(Path(self.stores[0, shard].path), shard)
            found += [int.from_bytes(at[:8], "big") for some in checkpoint.keys(model.revision, compacted)
                      for at, _ in some]
            checkpoint.close()
        assert sorted(found) == sorted(version.revision for version in wanted)

    def close(self) -> None:
        for store in self.stores.values():
            store.close()

    def reopen(self) -> None:
        """All hosts, with what was flushed."""
        self.lists.clear()  # they read the old databases
        self.reads.clear()
        for (host, shard), store in self.stores.items():
            store.flush()
            store.close()
            self.stores[host, shard] = self.open(host, shard)
        for host in self.copiers if self.table.move is not None else ():
            self.copy(host)

    # -- the order

    def apply(self, given: dict[int, bytes], before: int, sub: int = -1) -> None:
        """One record; ``given``: what stands in it for each shard."""
        self.index += 1
        position = self.index, self.index, 1, self.model.revision
        for (_, shard), store in self.stores.items():
            data = given.get(shard, b"")
            record = [(before, data, 0, sub)] if data else []
            applied = store.apply_changes(record, position, want_events=True)
            assert not applied.miscounted

    def control(self, item: bytes) -> None:
        self.apply(dict.fromkeys(range(SHARDS), item), self.model.revision)

    def place(self, *given: bytes) -> None:
        """Changes of placement, in one record."""
        data = b"".join(given)
        for kind, pos, end in items(data):
            self.table = changes.take(self.table, data, kind, pos, end, self.model.revision)
        self.control(data)

    def put(self, key: bytes) -> None:
        before = self.model.revision
        lease = self.random.choice((0, *LEASES))
        value = b"v" * self.random.randrange(40)
        item = self.model.put(key, value, lease)
        self.apply({self.table.owner(key): item}, before)

    def delete(self, key: bytes) -> None:
        before = self.model.revision
        if item := self.model.delete(key):
            self.apply({self.table.owner(key): item}, before)

    def put_within(self, key: bytes) -> None:
        """A key is deleted, put and deleted in one revision, and stays away."""
        before, lease = self.model.revision, self.random.choice((0, *LEASES))
        changed = [("delete", key, b"", 0), ("put", key, b"within", lease), ("delete", key, b"", 0)]
        self.apply({self.table.owner(key): self.model.txn(changed)}, before)

    def delete_range(self) -> None:
        """Of all shards at once: a multi, whose parts name spans."""
        start, end = self.span()
        before, at = self.model.revision, self.model.revision + 1

        found = [key for key, _ in self.model.scan(start, end, before)]
        if not found:
            return
        self.model.txn([("delete", key, b"", 0) for key in found])
        assert self.model.revision == at
        self.index += 1
        for (_, shard), store in self.stores.items():
            own = [key for key in found if self.table.owner(key) == shard]
            data = [(before, records.delete_range(start, end, len(own)), 0, 0)] if own else []
            applied = store.apply_changes(data, (self.index, self.index, 1, at), want_events=True)
            assert not applied.miscounted, "G6: a deleted span has the keys that its shard owns"
            assert [event[2] for event in applied.events] == own

    def compact(self) -> None:
        self.compact_at(self.random.randint(max(self.model.compact_revision, 1), self.model.revision))

    def compact_at(self, revision: int) -> None:
        if item := self.model.compact(revision):
            self.table = changes.take_compact(self.table, revision)
            self.control(item)

    def remove_compacted(self) -> None:
        for store in self.stores.values():
            while not store.compaction_step(1000):
                pass

    def span(self) -> tuple[bytes, bytes]:
        while True:
            start, end = self.random.choice(BOUNDS), self.random.choice([*BOUNDS, END])
            if end == END or start < end:
                return start, end

    # -- moves

    def begin(self) -> None:
        for _ in range(20):
            if self.table.move is None:
                self.try_to_begin()

    def try_to_begin(self) -> None:
        start, end = self.span()
        single = end == start + b"\0"
        owners = self.table.owners(start, b"" if single else end)
        target = self.random.randrange(SHARDS)
        try:
            self.place(move_item(Move(self.table.last_move + 1, start, end, owners, target)))
        except AssertionError as error:
            assert "G11" in str(error)  # noqa: PT017 - found before anything is applied
            return
        self.moves += 1
        for host in self.hosts:
            store = self.stores[host, target]
            for left in list(store.left.values()):
                if any(part.meets(start, end) for part in left.parts(target)):
                    may_drop = store.compact_revision > left.revision
                    assert may_drop or any(part.meets(start, end) for part in left.unseen(target))
                    for _ in (drop_left if may_drop else bare_left)(store, left):
                        pass
                    assert may_drop or not any(
                        part.meets(start, end) for part in store.left[left.number].parts(target))
            self.copy(host)

    def target(self, host: int) -> StateStore:
        assert self.table.move is not None
        return self.stores[host, self.table.move.target]

    def copy(self, host: int) -> None:
        """A copy begins, or goes on after a start."""
        move = self.table.move
        assert move is not None
        copier = self.copiers[host] = Copier(move)
        store, staged = self.target(host), self.target(host).staged
        if (begun := copier.begin(None if staged is None else staged.progress)) is not None:
            begin_copy(store, move, begun.staging)

    def page(self, host: int) -> Staged:
        """One question to each source, and its answer; of any size."""
        copier, store = self.copiers[host], self.target(host)
        bounds = Bounds(*(self.random.choice((1, 3, 60, 5000)) for _ in range(3)))
        for ask in copier.asks():
            found = answer(self.stores[host, ask.source], copier.move, ask, bounds)
            batch = copier.take(ask, Answer.decode(found.encode()))
            if batch is not None and batch.anew:
                for _ in drop_span(store, copier.move.start, copier.move.end):
                    pass
                begin_copy(store, copier.move, batch.staging)
            elif batch is not None:
                stage(store, batch)
        staged = store.staged
        assert staged is not None
        return staged

    def pages(self) -> None:
        for host in self.hosts:
            if self.table.move is not None and self.random.random() < 0.5:
                self.page(host)

    def end(self) -> None:
        move = self.table.move
        if move is None:
            return
        if self.random.random() < 0.2:
            self.copiers.clear()
            self.place(moved_item(Moved(move.number, False, 0, 0)))
            self.check()  # what was copied is there, and is not shown
            for host in self.hosts:
                for _ in drop_span(self.stores[host, move.target], move.start, move.end):
                    pass
            return
        live = 0
        for host in self.hosts:
            while self.copiers[host].through < self.model.revision:
                self.page(host)
            live = self.page(host).live
        self.copiers.clear()
        self.switched += 1
        self.place(moved_item(Moved(move.number, True, self.model.revision, live)))

    def move(self, start: bytes, end: bytes, target: int) -> None:
        """A whole move, of one host."""
        sources, number = self.table.owners_of(start, end), self.table.last_move + 1
        self.place(move_item(Move(number, start, end, sources, target)))
        self.copy(0)
        while self.copiers[0].through < self.model.revision:
            self.page(0)
        self.place(moved_item(Moved(number, True, self.model.revision, self.page(0).live)))

    def drop(self) -> None:
        """G10: what no read can ask for any more."""
        for store in self.stores.values():
            for left in list(store.left.values()):
                if store.compact_revision > left.revision:
                    for _ in drop_left(store, left):
                        pass

    def list_leases(self) -> None:
        """Lists of keys begin at some stores, go on, or end."""
        for store in self.stores.values():
            if self.steps.random() < 0.1:
                self.lists.append(store.lease_lists.read(self.steps.choice(LEASES), 1))
        self.lists = [work for work in self.lists if not any(
            next(work, self) is self for _ in range(self.steps.choice((0, 1, 1, 9))))]

    # -- long reads

    def read(self) -> None:
        """One begins, or goes on: it has the rows of its own moment, whatever moves meanwhile."""
        if len(self.reads) < 3:
            store, (start, end) = self.stores[0, self.random.randrange(SHARDS)], self.span()
            reader = store.reader(self.random.choice((0, 0, store.revision)))
            request = rpc_pb2.RangeRequest(key=start, range_end=end).SerializeToString()
            right = [kv for _, kv in reader.scan(start, end)]
            self.reads.append((RangeRead(request), reader.rows(start, end, 100), right))
        read, rows, right = self.random.choice(self.reads)
        if not read.feed_from(rows, self.random.choice((1, 3, 60)), 1000):
            return
        self.reads = [one for one in self.reads if one[0] is not read]
        found = rpc_pb2.RangeResponse.FromString(read.finish()).kvs
        assert [kv.SerializeToString() for kv in found] == right

    # -- what is to be seen

    def check(self) -> None:
        model, table = self.model, self.table
        for host in self.hosts:
            stores = {shard: self.stores[host, shard] for shard in range(SHARDS)}
            for revision in range(max(model.compact_revision, 1), model.revision + 1):
                for start, end in ((b"\0", b"\0"), self.span()):
                    wanted = model.scan(start, end, revision)
                    found: list[tuple[bytes, bytes]] = []
                    for shard, store in stores.items():
                        rows = list(store.reader(revision).scan(start, end))
                        assert all(table.owners_at(key, b"", revision) == (shard,) for key, _ in rows), "G6"
                        assert store.reader(revision).count(start, end)[0] == len(rows)
                        assert list(store.scan(start, end, revision)) == rows
                        found += rows
                    assert sorted(found) == wanted, (revision, start, end)
                key = self.random.choice(KEYS)
                (owner,) = table.owners_at(key, b"", revision)
                version = model.at(key, revision)
                assert stores[owner].get(key, revision) == (version.kv(key) if version else None)
            self.check_latest(stores)
            self.check_history(stores)
        for shard in range(SHARDS):
            first, *others = [self.stores[host, shard] for host in self.hosts]
            for other in others:
                assert first.hash_kv().run() == other.hash_kv().run()
                assert first.hash_state().run() == other.hash_state().run(), "I19"

    def check_latest(self, stores: dict[int, StateStore]) -> None:
        model, table = self.model, self.table
        start, end = self.span()
        found: list[tuple[bytes, bytes]] = []
        for shard, store in stores.items():
            rows = list(store.scan(start, end))
            assert all(table.owner(key) == shard for key, _ in rows), "G6"
            assert spliced(store, start, end) == [kv for _, kv in rows]
            while not store.counts.build_step():
                pass
            assert store.quick_count(b"\0", b"\0") == len(list(store.scan(b"\0", b"\0")))
            assert store.quick_count(start, end) in (None, len(rows))
            while self.random.random() < 0.5 and not store.counts.cut_step():
                pass
            assert not store.counts.ready or store.quick_count(start, end) == len(rows)
            found += rows
        assert sorted(found) == model.scan(start, end, model.revision)
        for lease in LEASES:
            hang = {key for store in stores.values() for key in store.lease_keys(lease)}
            assert sorted(hang) == model.lease_keys(lease)
            assert {key for store in stores.values() for key in store.attached(lease) if key} == hang
        for key in KEYS:
            version = model.at(key, model.revision)
            owner = stores[table.owner(key)]
            assert owner.get(key) == (version.kv(key) if version else None)
            current = owner.current(key)
            assert (current is None) == (version is None)
            assert current is None or version is None or current.mod == version.revision

    def check_history(self, stores: dict[int, StateStore]) -> None:
        model = self.model
        start, end = self.span()
        since = self.random.randint(max(model.compact_revision, 1), model.revision)
        found = [
            event for store in stores.values()
            for event in history(store, start, end, since, want_prev=True).events]
        assert sorted(event[:5] for event in found) == sorted(
            event[:5] for event in model.history(start, end, since))


def spliced(store: StateStore, start: bytes, end: bytes) -> list[bytes]:
    """The values of a range as a long answer takes them, by blocks."""
    source = store.reader().rows(start, end, 100)
    parts: list[bytes] = []
    ended = False
    while not ended:
        _, _, ended = source.more(parts, 3, 1000)
    whole = b"".join(parts)
    found = []
    for _, kv in store.scan(start, end):
        assert kv in whole
        found.append(kv)
    assert sum(map(len, found)) <= len(whole) < sum(map(len, found)) + 8 * len(found) + 1
    return found

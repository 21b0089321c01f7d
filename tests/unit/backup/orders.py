"""A made order of three shards, with what each of its records has done to the store, and the files that one
host has of it: logs that may end early, states at any place."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cluster.effects import records
from cluster.features.rows import RowsOf, encode
from cluster.order.log import Attempt, Cut, Multi, Part, encode_cut, encode_multi, entry
from cluster.raft.types import Configuration, Entry, EntryKind, HardState
from cluster.settings import Peer
from node.backup.stopped.carrying import carry
from node.storage import RaftLog, StateStore
from tools.muster.host.identity import bootstrap
from tools.muster.host.identity.bootstrap import Identity
from tools.muster.machine.disk import seal

SHARDS = 3
OTHERS = range(1, SHARDS)
ORDER_TERM = 3
OWN = 0xA1
GROUP = Configuration(frozenset({OWN, 0xB2, 0xC3}))
PEERS = tuple(
    Peer(member, f"h{n}", "127.0.0.1", 2380 + n, (f"http://127.0.0.1:{2380 + n}",))
    for n, member in enumerate((OWN, 0xB2, 0xC3))
)
KEYS = 6  # of each shard
Version = tuple[int, int, bytes, int, int, bytes, int]  # revision, sub, key, create, version, value, lease


@dataclass(slots=True)
class _Key:
    """As the last effect that was logged leaves it."""

    created: list[int]  # the revision, once it is known
    version: int


@dataclass(slots=True)
class _Change:
    """One put or delete, logged and not in order yet."""

    key: bytes
    made: _Key | None  # None: it is deleted
    version: int = 0
    value: bytes = b""
    lease: int = 0


@dataclass
class Order:
    """See the module."""

    seed: int
    records: list[bytes] = field(default_factory=list)  # of the order log; the first has index 1
    entries: dict[int, list[bytes]] = field(default_factory=lambda: {s: [] for s in OTHERS})
    # after each record
    cuts: list[dict[int, int]] = field(default_factory=lambda: [dict.fromkeys(OTHERS, 0)])
    revisions: list[int] = field(default_factory=lambda: [1])
    leases: list[dict[int, int]] = field(default_factory=lambda: [{}])
    versions: list[Version] = field(default_factory=list)
    multis: list[tuple[int, set[int]]] = field(default_factory=list)  # record, shards that it changes

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._live: dict[bytes, _Key] = {}
        self._counts = dict.fromkeys(OTHERS, 0)
        self._pending: dict[int, list[tuple[int, list[_Change]]]] = {s: [] for s in OTHERS}

    @classmethod
    def made(cls, seed: int, length: int = 60, compacts: Iterable[int] = ()) -> Order:
        """``compacts``: records that compact up to the revision before them."""
        order = cls(seed)
        order._record([records.bootstrap(1, SHARDS, 2)], 1, dict(order.cuts[0]), {})
        while len(order.records) < length:
            order._next(compact=len(order.records) + 1 in compacts)
        return order

    def term(self, index: int) -> int:
        """Of the entry there in the log of a shard other than 0."""
        return 1 + index // 10

    # -- what comes next

    def _next(self, compact: bool) -> None:
        rng = self._rng
        for shard in OTHERS:
            for _ in range(rng.randrange(3)):
                self._entry(shard)
        items: list[bytes] = []
        revision = self.revisions[-1]
        for _ in range(rng.randrange(3)):
            revision += 1
            items.append(self._ordered(self._change(b"s0/%d" % rng.randrange(KEYS)), revision, 0))
        cuts: dict[int, Cut] = {}
        placed = dict(self.cuts[-1])
        for shard in OTHERS:
            due = self._pending[shard][: rng.randrange(4)]
            del self._pending[shard][: len(due)]
            for index, changes in due:
                for change in changes:
                    revision += 1
                    self._ordered(change, revision, 0)
                    self._counts[shard] += 1
                cuts[shard] = Cut(index, self.term(index), self._counts[shard])
                placed[shard] = index
        if cuts:
            items.append(encode_cut(cuts))
        if rng.random() < 0.4:
            revision += 1
            items.append(self._multi(revision, placed))
        leases = dict(self.leases[-1])
        if rng.random() < 0.3:
            lease = rng.randrange(1, 5)
            if lease in leases:
                del leases[lease]
                items.append(records.lease_revoke(lease, ()))
            else:
                leases[lease] = 100 + lease
                items.append(records.lease_grant(lease, 100 + lease))
        if rng.random() < 0.1:
            items.append(records.rows(encode(RowsOf.V2, [(b"k/%d" % revision, b"of version 2")])))
        if compact:
            items.append(records.compact(self.revisions[-1]))
        self._record(items, revision, placed, leases)

    def _record(
        self, items: list[bytes], revision: int, placed: dict[int, int], leases: dict[int, int]
    ) -> None:
        self.records.append(b"".join(items))
        self.revisions.append(revision)
        self.cuts.append(placed)
        self.leases.append(leases)

    def _entry(self, shard: int) -> None:
        rng = self._rng
        changes = [self._change(b"s%d/%d" % (shard, rng.randrange(KEYS))) for _ in range(rng.randrange(3))]
        count = self._counts[shard] + sum(len(some) for _, some in self._pending[shard]) + len(changes)
        log = self.entries[shard]
        log.append(entry(count, b"".join(map(_item, changes))))
        self._pending[shard].append((len(log), changes))

    def _multi(self, revision: int, placed: Mapping[int, int]) -> bytes:
        shards = sorted(self._rng.sample(range(SHARDS), 2))
        parts = []
        for sub, shard in enumerate(shards):  # of keys that nothing else writes: they would be locked
            change = self._change(b"s%d/m%d" % (shard, self._rng.randrange(3)))
            parts.append(Part(0, shard, sub, self._ordered(change, revision, sub)))
        terms = {s: self.term(placed[s]) if placed[s] else 0 for s in shards if s}
        self.multis.append((len(self.records) + 1, set(shards)))
        return encode_multi(Multi(Attempt(ORDER_TERM, revision), 1, terms, parts))

    def _change(self, key: bytes) -> _Change:
        rng, known = self._rng, self._live.get(key)
        if known is not None and rng.random() < 0.3:
            del self._live[key]
            return _Change(key, None)
        made = self._live[key] = _Key([], 1) if known is None else _Key(known.created, known.version + 1)
        return _Change(key, made, made.version, rng.randbytes(rng.randrange(30)), rng.choice([0, 0, 0, 1, 2]))

    def _ordered(self, change: _Change, revision: int, sub: int) -> bytes:
        """It gets its revision; its item as shard 0 logs it."""
        item = _item(change)
        created = 0
        if change.made is not None:
            if not change.made.created:
                change.made.created.append(revision)
            created = change.made.created[0]
        found = (revision, sub, change.key, created, change.version, change.value, change.lease)
        self.versions.append(found)
        return item

    # -- what a host has of it

    def logs(self, root: Path, ends: Mapping[int, int], order_end: int | None = None) -> None:
        """Write the logs, those of other shards than 0 up to ``ends``."""
        last = len(self.records) if order_end is None else order_end
        kind = EntryKind.RECORD
        found = {0: [Entry(i + 1, ORDER_TERM, kind, data) for i, data in enumerate(self.records[:last])]}
        for shard in OTHERS:
            log = self.entries[shard][: ends[shard]]
            found[shard] = [Entry(i + 1, self.term(i + 1), kind, data) for i, data in enumerate(log)]
        for shard, entries in found.items():
            with contextlib.closing(RaftLog.open(root / f"shard-{shard}" / "log", initial=GROUP)) as log_:
                log_.append(entries, HardState(max(e.term for e in entries), OWN, 0))
                log_.sync()

    def states(self, root: Path, places: Mapping[int, int]) -> None:
        """Write the states, each at a place of the order; all logs have to be there up to it."""
        with contextlib.ExitStack() as opened:
            logs = []
            for shard in range(SHARDS):
                logs.append(RaftLog.open(root / f"shard-{shard}" / "log", initial=GROUP))
                opened.callback(logs[-1].close)
            for shard, place in places.items():
                store = StateStore.open(root / f"shard-{shard}" / "state", range_cache_bytes=0)
                with contextlib.closing(store):
                    carry(store, shard, logs[shard], logs[0], place)

    def shown(self, revision: int) -> set[Version]:
        """Every change up to a revision."""
        return {version for version in self.versions if version[0] <= revision}


def _item(change: _Change) -> bytes:
    made = change.made
    if made is None:
        return records.delete(change.key)
    created = made.created[0] if made.created else 0 if change.version == 1 else records.PENDING_REVISION
    return records.put(change.key, created, change.version, change.value, change.lease)


def written(order: Order, root: Path, places: dict[int, int], ends: dict[int, int]) -> None:
    """Files of a host whose states stand at ``places`` and whose logs end there, or later at ``ends``."""
    order.logs(root / "whole", {shard: len(order.entries[shard]) for shard in OTHERS})
    order.states(root / "whole", places)
    order.logs(root, ends)
    for shard in range(SHARDS):
        (root / "whole" / f"shard-{shard}" / "state").rename(root / f"shard-{shard}" / "state")


def host_with(order: Order, data_dir: Path, places: dict[int, int], ends: dict[int, int]) -> Identity:
    """The data directory of a host that does not run."""
    folder = data_dir / "member"
    written(order, folder, places, ends)
    identity = Identity(0xC1, OWN, 7, SHARDS, 2, PEERS)
    for shard in range(SHARDS):
        seal.seal(folder / f"shard-{shard}", identity.incarnation)
        seal.begin(folder / f"shard-{shard}", identity.incarnation)
    bootstrap.write_identity(folder / "identity.json", identity)
    return identity

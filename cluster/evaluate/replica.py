"""A shard's leader between two moments: what is applied, and what is logged and not yet applied.

The rule (architecture section 3, ZooKeeper's primary-order scheme): the leader evaluates each request at
once against its *speculative state*, which is the applied state plus an overlay of the effects that it has
logged and that are not applied yet. All requests of a tick become one log entry of effects. Followers
never evaluate, they apply.

* A leader evaluates nothing before it has applied an entry of its own term, hence all that it inherited (I8):
  the driver makes a :class:`Leader` only then, and drops it when the term is lost: overlay, leases' deadlines
  and open answers die with the term.
* Answers, refusals included, are given when their entry is applied: a refusal may rest on an effect that is
  not committed yet (I7). So a request that changed nothing still waits for the entry of its tick.
* Shard 0 knows the revision of an effect at once: it is the fold over its own log's tail (C4).

Pure: storage is read through :class:`AppliedState`, time is passed in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Protocol, TypeAlias

from cluster.effects import records
from cluster.evaluate import requests as evaluate
from cluster.evaluate.feature_table import WRITES
from cluster.evaluate.footprint import overlap
from cluster.evaluate.plain_put import key_end, written
from cluster.evaluate.requests import Current, Outcome, Version
from cluster.evaluate.spans import Span, holds, keys_in, without
from cluster.evaluate.txns.draft import Draft, large
from cluster.evaluate.txns.transactions import Turn, Unlooked
from cluster.features.auth.state import AuthState
from cluster.features.lessor import NEVER, Lessor
from cluster.features.rows import Row, RowsOf, encode
from cluster.features.v2.plain import plain_set
from cluster.features.v2.tree import SetRows, Tree
from cluster.wire.messages import Method

if TYPE_CHECKING:
    from cluster.evaluate.txns.range_compares import RangeCompares

LOOK = 1000  # rows passed over between two pauses
Ahead: TypeAlias = "RangeCompares | Draft"  # what is done of a transaction ahead of its turn
Written = tuple[bytes, Version]  # a key, and what it is since its put


class Pinned(Protocol):
    """The applied state of one moment, for as long as it is held."""

    def scan(
        self, start: bytes, end: bytes, look: int = 0, revision: int = 0
    ) -> Iterator[tuple[bytes, bytes]]: ...


class AppliedState(Protocol):
    """What the leader reads of the applied state (``node.storage.StateStore``, or a model in tests)."""

    @property
    def revision(self) -> int: ...
    @property
    def compact_revision(self) -> int: ...
    def current(self, key: bytes) -> Current | None: ...
    def get(self, key: bytes, revision: int = 0) -> bytes | None: ...
    def scan(
        self, start: bytes, end: bytes, revision: int = 0, look: int = 0
    ) -> Iterator[tuple[bytes, bytes]]: ...
    def reader(self, revision: int = 0) -> Pinned: ...
    def live_count(self, start: bytes, end: bytes) -> int: ...
    def changes(self, from_revision: int) -> Iterator[tuple[int, int, int, bytes]]: ...
    def lease(self, lease: int) -> tuple[int, int] | None: ...
    def meta(self, name: str) -> bytes | None: ...
    def alarms(self) -> list[tuple[int, int]]: ...
    def lease_keys(self, lease: int) -> list[bytes]: ...


class NotYet(Exception):
    """The request reads at a revision that is logged and not applied: ask again once it is."""

    def __init__(self, revision: int) -> None:
        super().__init__(revision)
        self.revision = revision


class Overlay:
    """The speculative state: a view for ``cluster.evaluate.requests`` of applied state + pending effects."""

    __slots__ = (
        "_attached",
        "_hung",
        "_leases",
        "_ranges",
        "_sorted",
        "_store",
        "_writes",
        "batch",
        "compact_revision",
        "revision",
    )

    def __init__(self, store: AppliedState) -> None:
        self._store = store
        # the last pending write of each key, with the batch that it belongs to
        self._writes: dict[bytes, tuple[int, Version | None]] = {}
        # its keys when it was last asked for a range
        self._sorted: tuple[tuple[int, int], list[bytes]] = ((0, 0), [])
        # spans deleted whole, with their batch; what was pending in them is no longer in _writes, what is in
        # _writes came after them
        self._ranges: list[tuple[int, Span]] = []
        self._leases: dict[int, tuple[int, bool]] = {}  # pending grants (True) and revokes (False)
        # keys that pending writes hang on a lease, with the last batch that did; some may have left it again
        self._hung: dict[int, dict[bytes, int]] = {}
        self._attached: deque[tuple[int, int, bytes]] = deque()  # the same by batch: (batch, lease, key)
        self.batch = 1
        self.revision = store.revision
        self.compact_revision = store.compact_revision

    @property
    def applied(self) -> AppliedState:
        """What it lies over."""
        return self._store

    def current(self, key: bytes) -> Current | Version | None:
        """Create, mod, version and lease of the live key, or None."""
        pending = self._writes.get(key)
        if pending is not None:
            return pending[1]
        if self._ranges and self._deleted(key):
            return None
        return self._store.current(key)

    def get(self, key: bytes) -> bytes | None:
        """The live key's KeyValue in wire form, or None."""
        pending = self._writes.get(key)
        if pending is not None:
            return None if pending[1] is None else pending[1].kv
        if self._ranges and self._deleted(key):
            return None
        return self._store.get(key)

    def scan(self, start: bytes, end: bytes, revision: int = 0) -> Iterator[tuple[bytes, bytes]]:
        """Live ``(key, KeyValue)`` of a range in key order, at ``revision`` (0: the view's own), and
        pauses."""
        if revision and revision < self.revision:
            if revision > self._store.revision:
                raise NotYet(revision)
            return self._store.scan(start, end, revision, LOOK)
        if not self._writes:
            return self._rows(start, end)
        return self._merged(start, end)

    def written_in(self, span: Span) -> Sequence[bytes]:
        """The keys of a span with pending writes, in order. Sorted once for all ranges of a request."""
        writes = self._writes
        if not writes:
            return ()
        # keys come with a revision of their own, and go without others coming
        state = self.revision, len(writes)
        if self._sorted[0] != state:
            self._sorted = state, sorted(writes)
        return keys_in(self._sorted[1], span)

    def changing(self, span: Span) -> Sequence[bytes] | None:
        """The keys of a span with pending writes; None if a delete of a range that it meets is pending."""
        if self._ranges and any(overlap(span, deleted) for _, deleted in self._ranges):
            return None
        return self.written_in(span)

    def written_since(self, batch: int) -> Iterator[bytes]:
        """The keys with pending writes of a batch and later ones."""
        return (key for key, pending in self._writes.items() if pending[0] >= batch)

    def settled(self) -> None:
        """NotYet: a delete of a range is pending."""
        if self._ranges:
            raise NotYet(self.revision)

    def _deleted(self, key: bytes) -> bool:
        return any(holds(span, key) for _, span in self._ranges)

    def _rows(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The applied rows that no pending delete of a range covers."""
        if not self._ranges:
            return self._store.scan(start, end, 0, LOOK)
        pieces = without((start, end), [span for _, span in self._ranges])
        return chain.from_iterable([self._store.scan(*piece, 0, LOOK) for piece in pieces])

    def count(self, start: bytes, end: bytes) -> int:
        """How many live keys a range has."""
        store, span = self._store, (start, end)
        pieces = without(span, [deleted for _, deleted in self._ranges]) if self._ranges else [span]
        found = sum([store.live_count(*piece) for piece in pieces])
        for key in self.written_in(span):
            found += self._writes[key][1] is not None
            found -= not self._deleted(key) and store.current(key) is not None
        return found

    def _merged(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        writes = self._writes
        keys = self.written_in((start, end))
        at, count = 0, len(keys)
        for row_key, kv in self._rows(start, end):
            while at < count and keys[at] < row_key:
                version = writes[keys[at]][1]
                if version is not None:
                    yield keys[at], version.kv
                at += 1
            if at < count and keys[at] == row_key:
                continue  # the pending write hides the applied row; it is yielded by the loop above or below
            yield row_key, kv
        for key in keys[at:]:
            version = writes[key][1]
            if version is not None:
                yield key, version.kv

    def lease_exists(self, lease: int) -> bool:
        """Whether the lease is granted and not revoked."""
        pending = self._leases.get(lease)
        return self._store.lease(lease) is not None if pending is None else pending[1]

    def changes_lease(self, lease: int) -> bool:
        """Whether a grant or a revoke of it is pending."""
        return lease in self._leases

    def lease_keys(self, lease: int) -> list[bytes]:
        """The keys that hang on a lease now, in key order."""
        writes, ranges = self._writes, self._ranges
        keys = self._store.lease_keys(lease)
        if not (writes or ranges):
            return keys
        keys = [key for key in keys if key not in writes and not (ranges and self._deleted(key))]
        # as many steps as the lease has keys, however much is pending
        for key in self._hung.get(lease, ()):
            pending = writes.get(key)
            if pending is not None and pending[1] is not None and pending[1].lease == lease:
                keys.append(key)
        return sorted(keys)

    def take(self, outcome: Outcome) -> None:
        """Take in what a request did; the next request sees it."""
        batch, writes = self.batch, self._writes
        for span in outcome.ranges:
            for key in [key for key in writes if holds(span, key)]:
                del writes[key]
            self._ranges.append((batch, span))
        for key, version in outcome.writes:
            writes[key] = (batch, version)
            if version is not None and version.lease:
                self._hung.setdefault(version.lease, {})[key] = batch
                self._attached.append((batch, version.lease, key))
        if outcome.changed:
            self.revision += 1

    def take_put(self, key: bytes, version: Version) -> None:
        """As :meth:`take`, of one put."""
        self._writes[key] = self.batch, version
        self.revision = version[1]

    def set_lease(self, lease: int, granted: bool) -> None:
        """A pending grant or revoke."""
        self._leases[lease] = (self.batch, granted)

    def forget(self, batch: int, keys: Iterable[bytes], leases: Iterable[int]) -> None:
        """Drop what ``batch`` wrote, now that it is applied, unless a later batch wrote it again."""
        writes = self._writes
        for key in keys:
            pending = writes.get(key)
            if pending is not None and pending[0] <= batch:
                del writes[key]
        if self._ranges:
            self._ranges = [deleted for deleted in self._ranges if deleted[0] > batch]
        attached, hung = self._attached, self._hung
        while attached and attached[0][0] <= batch:
            _, lease, key = attached.popleft()
            keys_of = hung.get(lease)
            if keys_of is not None and keys_of.get(key, NEVER) <= batch:
                del keys_of[key]
                if not keys_of:
                    del hung[lease]
        for lease in leases:
            held = self._leases.get(lease)
            if held is not None and held[0] <= batch:
                del self._leases[lease]

    def statistics(self) -> dict[str, int]:
        """Sizes of what is pending."""
        return {"pending_keys": len(self._writes), "pending_leases": len(self._leases)}


class Batch:
    """What was evaluated since the last entry: it becomes the next one."""

    __slots__ = ("items", "keys", "leases", "number", "puts", "revision", "sets", "stretch", "v2_sets")

    def __init__(self, number: int, revision: int) -> None:
        self.number = number
        self.revision = revision  # of the speculative state after this batch
        self.items: list[bytes] = []
        self.keys: list[bytes] = []  # that it wrote, but for ``puts``
        # what the last plain puts wrote, each at a revision of its own: one item, once something else comes
        self.stretch: list[Written] = []
        self.leases: list[int] = []
        self.puts: list[Written] | None = None  # once sealed: ``stretch``, if there is nothing else
        # rows of the last plain sets of the v2 tree, of which one item is made as well, the counters' behind
        self.v2_sets = SetRows()
        self.sets: SetRows | None = None  # once sealed: ``v2_sets``, if there is nothing else

    def close_sets(self, tree: Tree | None) -> None:
        """Something else than plain sets comes, and has not changed the tree yet."""
        if self.v2_sets:
            self.items.append(_sets_item(self.v2_sets, tree))
            self.v2_sets = SetRows()

    def close_stretch(self, tree: Tree | None) -> None:
        """Something else than plain puts and sets comes. ``tree``: what the sets were evaluated with."""
        self.close_sets(tree)
        if self.stretch:
            self.items.append(_puts_item(self.stretch))
            self.keys += [key for key, _ in self.stretch]
            self.stretch = []


def _puts_item(written: list[Written]) -> bytes:
    return records.puts(
        written[0][1].mod,
        [key for key, _ in written],
        [version.kv for _, version in written],
        [version.create == version.mod for _, version in written],
    )


def _sets_item(rows: list[Row], tree: Tree | None) -> bytes:
    assert tree is not None, "sets were evaluated with it"
    rows.append(tree.counters())
    return records.rows(encode(RowsOf.V2, rows))


def _plainly_put(outcome: Outcome) -> Written | None:
    """What a request wrote whose effect is that of a plain put: a transaction that puts one key, say."""
    if not outcome.items or outcome.items[0] > records.Item.PUT_NEW or len(outcome.writes) != 1:
        return None
    key, version = outcome.writes[0]
    return (key, version) if version is not None and not version.lease and len(key) < 0x80 else None


class Leader:
    """Evaluates a shard's writes for as long as this replica leads it at one term.

    The driver calls :meth:`execute` for each request of a tick, :meth:`seal` to get the tick's record,
    and :meth:`applied` when that record's entry has been applied.
    """

    def __init__(
        self,
        store: AppliedState,
        term: int,
        *,
        max_txn_ops: int,
        lessor: Lessor,
        new_lease_id: Callable[[], int],
        late_answers: bool = False,
        auth: AuthState | None = None,
        v2: Callable[[], Tree] = Tree,
    ) -> None:
        """``late_answers``: outcomes may leave their answers for later (``Outcome.late``), and transactions
        may ask for a look ahead (Unlooked)."""
        self.term = term
        self._weigh = store.live_count if late_answers else None
        self.view = Overlay(store)
        self.lessor = lessor
        self.store = self._store = store
        self.auth = auth or AuthState()  # users and roles as logged; what is applied may be behind
        self._v2 = v2
        self._v2_tree: Tree | None = None
        self._max_txn_ops = max_txn_ops
        self.new_lease_id = new_lease_id
        self._open = Batch(1, self.view.revision)
        self._sealed: list[Batch] = []

    @property
    def v2(self) -> Tree:
        """The v2 tree as logged, for who changes it. It is copied where it is first asked for: until then
        this leader has logged nothing of it, and what others have logged is applied (I8)."""
        tree = self._tree()
        self._open.close_sets(tree)
        return tree

    def _tree(self) -> Tree:
        if self._v2_tree is None:
            self._v2_tree = self._v2()
        return self._v2_tree

    @property
    def dirty(self) -> bool:
        """Whether anything was evaluated since the last :meth:`seal`."""
        batch = self._open
        return bool(batch.items or batch.stretch or batch.v2_sets)

    def put(self, body: bytes) -> int:
        """Evaluate a plain put, as most are: the revision it takes. 0: it is none, :meth:`execute` it. Hot
        path: 1.4 us, where ``execute`` takes 3."""
        end = key_end(body)
        if not end or len(body) == end:
            return 0
        view, batch = self.view, self._open
        key = body[2:end]
        revision = view.revision + 1
        version = written(body, end, view.current(key), revision)
        view.take_put(key, version)
        batch.revision = revision
        batch.stretch.append((key, version))
        return revision

    def v2_set(self, body: bytes) -> bytes | None:
        """Evaluate a plain set of the v2 tree: its answer. None: it is none, :meth:`execute` it. Hot path."""
        return plain_set(self._v2_tree or self._tree(), body, self._open.v2_sets)

    def execute(self, method: int, body: bytes, looked: Ahead | None = None) -> Outcome:
        """Evaluate one write. EtcdError: the refusal, to be answered like a result (see above); NotYet;
        Unlooked: it is to be ``looked`` at ahead, or again."""
        view = self.view
        if method == Method.PUT:
            outcome = evaluate.put(view, body)
        elif method == Method.TXN:
            outcome = self._txn(body, looked)
        elif method == Method.DELETE_RANGE:
            outcome = evaluate.delete_range(view, body, self._weigh)
        elif (evaluation := WRITES.get(method)) is not None:
            outcome = evaluation(self, body)
        else:
            raise ValueError(f"not a write: method {method}")
        self._take(outcome)
        return outcome

    def set_lease(self, lease: int, granted: bool) -> None:
        """A lease was granted or revoked by what is being evaluated."""
        self.view.set_lease(lease, granted)
        self._open.leases.append(lease)

    def logs_end_of(self, lease: int) -> bool:
        """Whether a revoke of the lease is logged and not applied, as the logged items say."""
        return any(
            records.revokes(item, lease)
            for batch in (*self._sealed, self._open) if lease in batch.leases
            for item in batch.items
        )

    def _txn(self, body: bytes, looked: Ahead | None) -> Outcome:
        view, weigh = self.view, self._weigh
        if isinstance(looked, Draft):
            if (outcome := looked.outcome()) is not None:
                return outcome
            if looked.fit:
                raise Unlooked
            looked = None
        if looked is not None:
            looked.look_again(view, self._store)
        turn = Turn(looked) if weigh is not None else None
        return evaluate.txn(view, body, self._max_txn_ops, weigh, turn)

    def ahead(self, body: bytes) -> Ahead | None:
        """What of a transaction is to be done ahead of its turn, before that is tried. EtcdError."""
        if self._weigh is None or (request := large(body)) is None:
            return None
        return Draft(self.view, request, self._max_txn_ops)

    def expire(self, lease: int) -> int:
        """Revoke a lease that this term found due (H7: decided and appended in one and the same term); how
        many keys went with it."""
        if not self.view.lease_exists(lease):
            return 0
        outcome = evaluate.revoke(self.view, lease)
        self._take(outcome)
        self.set_lease(lease, False)
        return len(outcome.writes)

    def append(self, item: bytes) -> None:
        """Log an item that changes no key: bootstrap, a lease checkpoint."""
        self._mixed().items.append(item)

    def append_ordered(
        self, item: bytes, revisions: int, writes: list[tuple[bytes, Version | None]],
        revoked: Sequence[int], ranges: Sequence[Span] = (),
    ) -> None:
        """Log an item that gives other shards' effects their place: a cut, a multi with what it writes
        here. ``revoked``: the leases that the item revokes."""
        batch = self._mixed()
        batch.items.append(item)
        if writes or ranges:
            batch.keys.extend([key for key, _ in writes])
            self.view.take(Outcome(item, False, b"", writes, 0, ranges))
        self.view.revision += revisions
        for lease in revoked:
            self.view.set_lease(lease, False)
            batch.leases.append(lease)
        batch.revision = self.view.revision

    def _mixed(self) -> Batch:
        """The open batch, which is to hold something else than plain puts and sets next."""
        batch = self._open
        batch.close_stretch(self._v2_tree)
        return batch

    def _take(self, outcome: Outcome) -> None:
        batch, writes = self._open, outcome.writes
        if (put := _plainly_put(outcome)) is not None:
            batch.stretch.append(put)
        else:
            if outcome.items:
                self._mixed().items.append(outcome.items)
            if writes:
                batch.keys.extend([key for key, _ in writes])
        self.view.take(outcome)
        batch.revision = self.view.revision

    def seal(self) -> tuple[bytes, Batch]:
        """The record of everything evaluated since the last call; empty if nothing changed, still to be
        logged if anybody waits for it."""
        batch = self._open
        self._sealed.append(batch)
        self.view.batch += 1
        self._open = Batch(self.view.batch, self.view.revision)
        if batch.items or bool(batch.stretch) == bool(batch.v2_sets):
            batch.close_stretch(self._v2_tree)
            return b"".join(batch.items), batch
        if batch.v2_sets:
            batch.sets = batch.v2_sets
            return _sets_item(batch.sets, self._v2_tree), batch
        batch.puts = batch.stretch
        return _puts_item(batch.puts), batch

    def applied(self, batch: Batch) -> None:
        """The entry of ``batch`` has been applied: its effects are in the store now."""
        assert self._store.revision >= batch.revision, "I7: applied state must hold the batch"  # I7
        self._sealed.remove(batch)
        self.view.forget(batch.number, batch.keys + [key for key, _ in batch.puts or ()], batch.leases)

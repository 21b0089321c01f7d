"""A shard's leader: it evaluates writes on what is applied and what is logged and not yet applied.

The rule (ZooKeeper's primary-order scheme): the leader evaluates each request at once against its
*speculative state*, the applied state plus an overlay of its logged effects. All requests of a tick become
one log entry of effects. Followers never evaluate, they apply.

* A leader evaluates nothing before it has applied an entry of its own term and so all inherited ones (I8).
  The caller makes a :class:`Leader` only then, and drops it with the term: overlay, leases' deadlines and
  open answers die with it.
* Answers, refusals included, are given when their entry is applied: a refusal may rest on an effect that is
  not committed yet (I7). So a request that changed nothing still waits for the entry of its tick.
* Shard 0 knows the revision of an effect at once: it is the fold over its own log's tail (C4).

Storage is read through :class:`AppliedState`, time is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

from cluster.effects import records
from cluster.evaluate import requests as evaluate
from cluster.evaluate.feature_table import WRITES
from cluster.evaluate.overlay import AppliedState, Overlay
from cluster.evaluate.plain_put import key_end, written
from cluster.evaluate.spans import Span
from cluster.evaluate.txns.compares import Turn, Undrafted, Unlooked
from cluster.evaluate.txns.draft import Draft, large
from cluster.evaluate.txns.range_compares import RangeCompares
from cluster.evaluate.view import Outcome, Version
from cluster.features import births, downgrade, growth
from cluster.features.auth.state import AuthState
from cluster.features.lessor import Lessor
from cluster.features.moves import Moving, Room
from cluster.features.rows import Row, RowsOf, encode
from cluster.features.v2.plain import plain_set
from cluster.features.v2.tree import SetRows, Tree
from cluster.members.table import Host
from cluster.pb import rpc_pb2 as pb
from cluster.placement.changes import (
    Moved,
    move_item,
    moved_item,
    shard_item,
    take_move,
    take_moved,
    take_shard,
)
from cluster.placement.table import Move, State, Table
from cluster.wire.messages import Method

Ahead: TypeAlias = RangeCompares | Draft  # what is done of a transaction ahead of its turn
Written = tuple[bytes, Version]  # a key, and what it is since its put


def look_of(why: Unlooked, body: bytes, looked: Ahead | None, draft: Callable[[Any], Draft]) -> Ahead:
    """What is to be done ahead of a transaction's turn, now that it was tried."""
    if looked is not None and looked.fit:
        return looked
    return draft(pb.TxnRequest.FromString(body)) if isinstance(why, Undrafted) else RangeCompares.of(body)


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
        written[0][1].mod, [key for key, _ in written], [version.kv for _, version in written],
        [version.create == version.mod for _, version in written],
    )


def _sets_item(rows: list[Row], tree: Tree | None) -> bytes:
    assert tree is not None, "sets were evaluated with it"
    rows += tree.counters()
    return records.rows(encode(RowsOf.V2, rows))


def _plainly_put(outcome: Outcome) -> Written | None:
    """The put of a request whose effect is that of a plain put, say a transaction that puts one key."""
    if not outcome.items or outcome.items[0] > records.Item.PUT_NEW or len(outcome.writes) != 1:
        return None
    key, version = outcome.writes[0]
    return (key, version) if version is not None and not version.lease and len(key) < 0x80 else None


class Told:
    """The hosts, and what each has said that it speaks, as logged; what is applied may be behind (G16).
    ``linked``: the version of the link with each host that is connected now, with itself too. ``table``: of
    placement, as applied; ``facts``: what births are judged by; ``room``: what moves are."""

    def __init__(
        self, grown: growth.Growth, hosts: Mapping[int, Host], linked: Callable[[], Mapping[int, int]] = dict,
        table: Callable[[], Table | None] = lambda: None,
        facts: Callable[[], births.Facts] = lambda: births.Facts({}, True, ()),
        room: Callable[[], Room] = Room,
    ) -> None:
        self.growth = grown.copy()
        self.hosts = dict(hosts)
        self.linked = linked
        self.facts = facts
        self.room = room
        self.moving: Moving | None = None  # once this leader sequences
        self._applied_table = table
        self._table: Table | None = None

    @property
    def table(self) -> Table | None:
        """As logged; None before the layout is applied. What is applied counts while nothing else is logged:
        a leader's first record is the layout itself."""
        logged, applied = self._table, self._applied_table()
        if logged is None or (applied is not None and applied.generation >= logged.generation):
            self._table = None
            return applied
        return logged

    @property
    def forming(self) -> int:
        """The shard that forms, as logged; 0: none does."""
        table = self.table
        return 0 if table is None else table.forming

    def placed(self, table: Table) -> None:
        """What makes this table is about to be logged."""
        self._table = table


class Ending(NamedTuple):
    """What went of a lease that was found due."""

    keys: int
    size: int  # bytes that are logged
    part: bool  # there is more: it is to be ended again


class Copies(NamedTuple):
    """What else a leader evaluates with. It is copied at the first use: until then this leader has logged
    nothing of it, and what others logged is applied (I8)."""

    v2: Callable[[], Tree]
    told: Callable[[], Told]


_NOTHING = Copies(Tree, lambda: Told(growth.Growth(), {}))


class Leader:
    """Evaluates a shard's writes during one term. The caller calls :meth:`execute` for each request of a
    tick, :meth:`seal` for the tick's record, and :meth:`applied` when that record's entry has been
    applied."""

    def __init__(
        self, store: AppliedState, term: int, *, max_txn_ops: int, lessor: Lessor,
        new_lease_id: Callable[[], int], late_answers: bool = True, auth: AuthState | None = None,
        copies: Copies = _NOTHING,
    ) -> None:
        """``late_answers``: outcomes may leave their answers for later (``Outcome.late``), and transactions
        may ask for a look ahead (Unlooked)."""
        self.term = term
        self._weigh = store.live_count if late_answers else None
        self.view = Overlay(store)
        self.lessor = lessor
        self.store = self._store = store
        self.auth = auth or AuthState()  # users and roles as logged; what is applied may be behind
        self._told: Told | None = None
        self._copies = copies
        self._v2_tree: Tree | None = None
        self._max_txn_ops = max_txn_ops
        self.new_lease_id = new_lease_id
        self._open = Batch(1, self.view.revision)
        self._sealed: list[Batch] = []

    @property
    def v2(self) -> Tree:
        """The v2 tree as logged, for a change."""
        tree = self._tree()
        self._open.close_sets(tree)
        return tree

    def _tree(self) -> Tree:
        if self._v2_tree is None:
            self._v2_tree = self._copies.v2()
        return self._v2_tree

    @property
    def counted(self) -> Tree | None:
        """The v2 tree as logged, once a change looked at it: it counts refusals at once."""
        return self._v2_tree

    @cached_property
    def alarms(self) -> frozenset[tuple[int, int]]:
        """Those that are raised (member, type), as logged; what is applied may be behind. Copied at the first
        use, as ``Copies`` are, and set by what raises or disarms one."""
        return frozenset(self._store.alarms())

    @cached_property
    def downgrade(self) -> bytes | None:
        """The target of the downgrade that is enabled, in the same way."""
        return self._store.meta(downgrade.META)

    @property
    def dirty(self) -> bool:
        """Whether anything was evaluated since the last :meth:`seal`."""
        batch = self._open
        return bool(batch.items or batch.stretch or batch.v2_sets)

    def put(self, body: bytes) -> int:
        """Evaluate a plain put: the revision it takes; 0: :meth:`execute` it. Hot path: 1.4 us, where
        ``execute`` takes 3."""
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
        """Evaluate a plain set of the v2 tree: its answer; None: :meth:`execute` it. Hot path."""
        return plain_set(self._v2_tree or self._tree(), body, self._open.v2_sets)

    def execute(self, method: int, body: bytes, looked: Ahead | None = None) -> Outcome:
        """Evaluate one write. EtcdError: the refusal, to be answered like a result; NotYet; Unlooked: it is
        to be ``looked`` at ahead, or again."""
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
        """The request under evaluation has granted or revoked a lease."""
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
        view, weigh, drafts = self.view, self._weigh, looked is None
        if isinstance(looked, Draft):
            if (outcome := looked.outcome()) is not None:
                return outcome
            if looked.fit:
                raise Unlooked
            looked = None
        if looked is not None:
            looked.look_again(view, self._store)
        turn = Turn(looked, drafts) if weigh is not None else None
        return evaluate.txn(view, body, self._max_txn_ops, weigh, turn)

    def ahead(self, body: bytes) -> Ahead | None:
        """What of a transaction is to be done ahead of its turn, before that is tried. EtcdError."""
        if self._weigh is None or (request := large(body)) is None:
            return None
        return Draft(self.view, request, self._max_txn_ops)

    def look(self, why: Unlooked, body: bytes, looked: Ahead | None) -> Ahead:
        """What is to be done ahead of a transaction's turn, now that it was tried."""
        return look_of(why, body, looked, lambda request: Draft(self.view, request, self._max_txn_ops))

    def expire(self, lease: int) -> Ending:
        """Revoke a lease that this term found due (H7: decided and appended in the same term), or take some
        of very many keys from it."""
        if not self.view.lease_exists(lease):
            return Ending(0, 0, False)
        outcome = evaluate.revoke(self.view, lease)
        self._take(outcome)
        if not outcome.part:
            self.set_lease(lease, False)
        return Ending(len(outcome.writes), len(outcome.items), outcome.part)

    def append(self, item: bytes) -> None:
        """Log an item that changes no key: bootstrap, a lease checkpoint."""
        self._mixed().items.append(item)

    @property
    def told(self) -> Told:
        """Of hosts, as logged."""
        if self._told is None:
            self._told = self._copies.told()
        return self._told

    def append_host(self, row: bytes) -> None:
        """Log a row of the table of members."""
        host = Host.decode(row)
        self.told.hosts[host.member_id] = host
        self.append(records.host(row))

    def append_spoken(self, member_id: int, spoken: growth.Spoken) -> None:
        """Log what a member says that it speaks, unless that is logged."""
        if self.told.growth.spoken.get(member_id) != spoken:
            rows = [growth.row(member_id, spoken.encode())]
            self.told.growth.take(rows)
            self.append(records.rows(encode(RowsOf.VERSIONS, rows)))

    def log_shard(self, shard: int, state: State, slot: int = 0, voters: Collection[int] = ()) -> bytes:
        """The item of a shard's next state, for the caller to log. AssertionError: it breaks a rule."""
        told = self.told
        assert told.table is not None, "the layout is agreed before it changes"
        told.placed(take_shard(told.table, shard, state, slot, tuple(sorted(voters))))
        return shard_item(shard, state, slot, sorted(voters))

    def log_move(self, move: Move) -> bytes:
        """The item with which a move begins, for the caller to log. AssertionError: it breaks a rule."""
        told = self.told
        assert told.table is not None, "the layout is agreed before it changes"
        told.placed(take_move(told.table, move, self.view.revision))
        return move_item(move)

    def log_moved(self, moved: Moved) -> bytes:
        """The same for its end."""
        told = self.told
        assert told.table is not None, "the layout is agreed before it changes"
        told.placed(take_moved(told.table, moved, self.view.revision))
        return moved_item(moved)

    def append_ordered(
        self, item: bytes, revisions: int, writes: list[tuple[bytes, Version | None]],
        revoked: Sequence[int], ranges: Sequence[Span] = (),
    ) -> None:
        """Log an item that gives other shards' effects their place: a cut, a multi with what it writes here.
        ``revoked``: the leases that the item revokes."""
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
        """The open batch, ready for something else than plain puts and sets."""
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
        """The record of everything evaluated since the last call. An empty record is logged, too, if a
        request waits for it."""
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

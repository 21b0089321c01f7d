"""Items of rows that name no revision (members, alarms, features): they go with an apply's last batch
(``Run.late``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rocksdict import WriteBatch

from cluster.effects.records import ALARM_BODY, BOOTSTRAP, GROWTH_LEVEL, INCARNATION, Item
from cluster.features import growth
from cluster.features.rows import Row, RowsOf, decode
from cluster.members.table import Host
from cluster.pb import rpc_pb2
from cluster.placement import Owned, Table, changes
from cluster.placement.base import Base
from node.storage import keys
from node.storage.state.moving.staged import Left, Switched

if TYPE_CHECKING:
    from node.storage.state.changes.run import Run


class PreparedRows:
    """The rows of a leader's own record of one feature, made while the entry is on its way, as puts are."""

    __slots__ = ("batch", "feature", "rows")

    def __init__(self, feature: int, rows: list[Row]) -> None:
        self.feature = feature
        self.rows = rows
        self.batch = WriteBatch(raw_mode=True)
        put, delete, prefix = self.batch.put, self.batch.delete, keys.feature_row(feature, b"")
        for name, value in rows:
            if value is None:
                delete(prefix + name)
            else:
                put(prefix + name, value)


def apply_prepared_rows(run: Run, prepared: PreparedRows) -> None:
    """The run's next record is a prepared one: its rows wait for the last batch."""
    _rows(run, prepared.feature, prepared.rows)


def _rows(run: Run, feature: int, rows: list[Row]) -> None:
    prefix = keys.feature_row(feature, b"")
    run.late.update([(prefix + name, value) for name, value in rows])
    run.out.rows.setdefault(feature, []).extend(rows)


def _host(run: Run, row: bytes) -> None:
    # also while a shard forms (G14 is the leader's to ask): a forced start logs rows whatever the table says
    run.late[keys.HOST_PREFIX + Host.decode(row).member_id.to_bytes(8, "big")] = row
    run.out.hosts.append(row)


def _table(run: Run) -> Table:
    table = run.out.placement or run.store.placement()
    if table is None and run.out.bootstrap is not None:  # a store that begins: of this run
        table = Table.initial(Base(*run.out.bootstrap[1:]))
    assert table is not None, "the layout is agreed before it changes"
    return table


def _placed(run: Run, table: Table, before: Table) -> None:
    run.out.placement = table
    run.late[keys.PLACEMENT_ROW] = table.encode()  # I6: in the batch of the record that changed it
    store, move = run.store, before.move
    if move is not None and table.move is None and table.spans != before.spans:
        if store.shard == move.target:
            run.late[keys.STAGING_ROW] = None  # its copies count from here on
        if store.shard in (move.target, *move.sources):
            came = store.staged.live if store.shard == move.target and store.staged is not None else 0
            run.switched.append(Switched(move.start, move.end, came))
            store.cache.forget_all()  # the run itself changes what is in there
        if store.shard in move.sources:
            run.left.append(Left(
                move.number, move.start, move.end, move.target, run.revision, 0, before))
    staged = store.staged
    span = None if staged is None or run.late.get(keys.STAGING_ROW, b"") is None else staged.span
    run.owned = Owned.of(table, store.shard, span)


def _check_base(run: Run, table: Table, data: bytes, pos: int) -> None:
    """G5: at the target the copy is whole before it counts. Its replica waits at this record until then."""
    moved, move, staged = changes.read_moved(data, pos), table.move, run.store.staged
    if moved.switched and move is not None and move.target == run.store.shard:
        assert staged is not None, f"G5: {moved} without a copy"
        assert staged.whole, f"G5: {moved} with {staged}"
        assert (staged.move, staged.live) == (moved.number, moved.live), f"G5: {moved} with {staged}"


def compacted(run: Run, revision: int) -> None:
    """The table forgets what no read can ask for any more."""
    table = run.out.placement or run.store.placement()
    if table is not None and (pruned := changes.take_compact(table, revision)) is not table:
        _placed(run, pruned, table)


def late_item(run: Run, data: bytes, kind: int, pos: int, end: int) -> bool:
    """Apply such an item; False if it is none."""
    late, out = run.late, run.out
    if kind == Item.ROWS:
        _rows(run, *decode(data, pos, end))
    elif kind == Item.BOOTSTRAP:
        if run.store.bootstrap() is None and keys.BOOTSTRAP_ROW not in late:  # the first one counts for ever
            late[keys.BOOTSTRAP_ROW] = data[pos:end]
            out.bootstrap = BOOTSTRAP.unpack_from(data, pos)
    elif kind == Item.PUBLISH:
        member = data[pos:end]
        member_id: int = rpc_pb2.Member.FromString(member).ID
        late[keys.MEMBER_PREFIX + member_id.to_bytes(8, "big")] = member
        out.published.append(member)
    elif kind == Item.ALARM:
        raised, alarm, member_id = ALARM_BODY.unpack_from(data, pos)
        alarm_row = keys.ALARM_PREFIX + bytes((alarm,)) + member_id.to_bytes(8, "big")
        late[alarm_row] = b"" if raised else None
        out.alarms = True
    elif kind == Item.DOWNGRADE:
        late[keys.DOWNGRADE_ROW] = data[pos:end] or None
    elif kind == Item.HOST:
        _host(run, data[pos:end])
    elif kind == Item.GROWTH:
        level, members = growth.read_item(data, pos, end)
        late[keys.GROWTH_ROW] = GROWTH_LEVEL.pack(level)
        out.grown.append((level, members, len(out.rows.get(RowsOf.VERSIONS, ()))))
    elif kind in changes.KINDS:
        grown = keys.GROWTH_ROW in late or run.store.row(keys.GROWTH_ROW) is not None
        assert grown, f"G16: an item of kind {kind} before any growth"
        before = _table(run)
        if kind == Item.MOVED:
            _check_base(run, before, data, pos)
        _placed(run, changes.take(before, data, kind, pos, end, run.revision), before)
    elif kind == Item.INCARNATION:
        member_id, incarnation = INCARNATION.unpack_from(data, pos)
        # the first one counts for ever
        row = keys.INCARNATION_PREFIX + b"%x" % member_id
        if run.store.row(row) is None and member_id not in dict(out.incarnations):
            late[row] = incarnation.to_bytes(8, "big")
            out.incarnations.append((member_id, incarnation))
    else:
        return False
    return True

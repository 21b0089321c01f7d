"""The state of a shard of a host that does not run, carried on by the host's own logs.

What is applied is what the nodes would have applied: the same folds, the same rows. It runs on copies of
their files (``salvage``).
"""

from __future__ import annotations

from collections.abc import Iterable

from cluster.effects.newer import NewerRecord
from cluster.order.following.placing import Placing
from cluster.order.log import Change, Control, Fold, project
from cluster.order.passing import Piece, behind
from cluster.order.sound import Place, sound
from cluster.raft.types import Entry, EntryKind
from node.storage import ApplyFailed, RaftLog, StateStore, StorageError
from node.storage.keys import FOLD

_RECORDS = 256  # of the order, applied in one batch
_BYTES = 1 << 20
_NO_STEP = -1  # an effect that has a revision of its own


def carry(
    store: StateStore, shard: int, own: RaftLog | None, order: RaftLog, last: int,
    kept: Iterable[Piece] = (),
) -> None:
    """Apply what is behind the state up to an order record, which ``own``, the shard's log, matches; None: no
    record up to there names it. ``kept``: from files before the order log. Raises StorageError,
    NewerRecord."""

    def entries_of(first: int, to: int) -> list[Entry]:
        assert own is not None, "the order names entries of a log that is not there"
        return own.entries(first, to, _BYTES)

    placing = Placing(shard, fold_of(store), entries_of)
    try:
        begins = order.snapshot_position().index
        for record in behind(kept, store.position.order_index, begins) or ():
            _by_cuts(store, placing, [(record.last, record.term, record.items)])
        while (at := store.position.order_index) < last:
            entries = order.entries(at + 1, min(last, at + _RECORDS), _BYTES)
            if shard == 0:
                _in_order(store, placing.fold, entries)
            else:
                _by_cuts(store, placing, [
                    (e.index, e.term, project(_sound(e), shard)) for e in entries])
        store.flush()
    except (StorageError, NewerRecord):
        raise
    except Exception as error:
        raise ApplyFailed(
            f"{store.path}: the order behind record {store.position.order_index} could not be applied: "
            f"{error!r}"
        ) from error


def fold_of(store: StateStore) -> Fold:
    """Of the order that a state has applied. A store of one shard keeps none before its data has grown."""
    stored = store.meta(FOLD)
    return Fold(store.revision) if stored is None else Fold.decode(stored)


def _sound(entry: Entry) -> bytes:
    # in every store: once its data has grown, one shard's order has transactions and cuts, too
    return sound(entry.data, Place.ORDER) if entry.kind == EntryKind.RECORD else b""


def _in_order(store: StateStore, fold: Fold, entries: list[Entry]) -> None:
    """Of shard 0: every entry is in order."""
    changes: list[tuple[int, bytes, int, int]] = []
    for entry in entries:
        for step in fold.take(_sound(entry), 0):
            if isinstance(step, Control):
                changes.append((step.revision, step.item, 0, _NO_STEP))
            elif isinstance(step, Change) and step.items:
                changes.append((step.revision, step.items, 0, step.sub if step.attempt else _NO_STEP))
    index, term = entries[-1].index, entries[-1].term
    store.apply_changes(changes, (index, index, term, fold.revision), meta={FOLD: fold.encode()})


def _by_cuts(store: StateStore, placing: Placing, records: list[tuple[int, int, bytes]]) -> None:
    """Of another shard: cuts say which of its own entries are."""
    run = [(index, term, sound(projection, Place.FED)) for index, term, projection in records]
    placed = placing.take(run, store.position.shard_index, store.position.term, None)
    position = (run[-1][0], placed.index, placed.term, placing.fold.revision)
    store.apply_changes(placed.changes, position, meta={FOLD: placing.fold.encode()})

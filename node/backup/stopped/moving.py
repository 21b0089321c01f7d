"""States of one host that does not run, carried on past the moves of keys between them.

What moves is in no log: where a move switches, its target needs the keys as the sources have them then (G5).
So all states are carried up to the record before the switch. There the target copies anew, as its node would:
what a crash has left of a copy may be behind. From then on the keys are its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from cluster.effects.records import Item, items
from cluster.order.moving.copier import Answer, Ask, Batch, Copier
from cluster.order.salvage import CannotBeKept
from cluster.placement.changes import Moved, read_moved
from cluster.placement.table import Move
from node.storage import StateStore
from node.storage.state.moving import staging

Records = Iterable[tuple[int, bytes]]


def pass_switches(
    stores: Mapping[int, StateStore], goals: dict[int, int], records: Records,
    carry: Callable[[int, int], None], uneven: bool,
) -> None:
    """Carry states up to each switch before ``goals``, by shard, and give each target its copy.

    ``records``: of the order, from what the least state lacks; ``carry(shard, last)``: apply what the logs
    hold. Raises CannotBeKept where a source lacks the keys. An ``uneven`` target ends before the switch
    then, and its goal with it."""
    for index, moved in _switches(records, max(goals.values())):
        due = [shard for shard, goal in goals.items() if stores[shard].position.order_index < index <= goal]
        if not due:
            continue
        for shard, goal in goals.items():
            if stores[shard].position.order_index < min(goal, index - 1):
                carry(shard, min(goal, index - 1))
        for shard in due:
            table = stores[shard].placement()
            if table is None or table.move is None or table.move.target != shard:
                continue
            try:
                _copy(stores, table.move, moved)
            except CannotBeKept:
                if not uneven:
                    raise
                goals[shard] = index - 1


def _switches(records: Records, last: int) -> Iterator[tuple[int, Moved]]:
    for index, data in records:
        if index > last:
            return
        for kind, at, _ in items(data):
            if kind == Item.MOVED and (moved := read_moved(data, at)).switched:
                yield index, moved


def _copy(stores: Mapping[int, StateStore], move: Move, moved: Moved) -> None:
    copier = Copier(move)
    _take(stores[move.target], move, copier.begin(None))
    while not copier.whole:
        for ask in copier.asks():
            _take(stores[move.target], move, copier.take(ask, _asked(stores, move, ask)))
    if copier.through < moved.source_revision:
        raise CannotBeKept(
            f"keys move to shard {move.target} at revision {moved.source_revision}, and their owners go up "
            f"to revision {copier.through} here")


def _asked(stores: Mapping[int, StateStore], move: Move, ask: Ask) -> Answer:
    with_keys = stores.get(ask.source)
    try:
        if with_keys is not None:
            return staging.answer(with_keys, move, ask)
    except staging.Unknown:
        pass
    raise CannotBeKept(
        f"keys move from shard {ask.source} to shard {move.target}, and shard {ask.source} does not have "
        "them here")


def _take(target: StateStore, move: Move, batch: Batch | None) -> None:
    if batch is not None and batch.anew:
        for _ in staging.begin(target, move, batch):
            pass
    elif batch is not None:
        staging.stage(target, batch)

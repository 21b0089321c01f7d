"""Keys move between shards, shards are born and dropped: tables of placement, as nodes tell them."""

from __future__ import annotations

from random import Random

from cluster.placement import Table
from cluster.placement.changes import Moved, take_compact, take_move, take_moved, take_shard
from cluster.placement.table import END, Move, State
from tests.unit.proxy.random.nodes import Nodes

_SPANS = (
    (b"a/x", b"a/x\0"), (b"b/", b"b0"), (b"a", b"d"), (b"c", END), (b"l/", b"l0"), (b"\0", END),
    (END, END))  # the last one: all keys
_MOST_SHARDS = 6
_SLOTS = 20
_CHANGES = ("move", "move", "move", "birth", "serve", "retire", "drop", "compact")


class Tables:
    def __init__(self, random: Random, nodes: Nodes) -> None:
        self._random = random
        self._nodes = nodes
        self.changes = 0

    def change(self) -> None:
        """The next table, if the rules of placement allow the change that is drawn."""
        context = self._nodes.net.context
        try:
            table = self._next(context.placement.table, self._random.choice(_CHANGES))
        except (AssertionError, KeyError):
            return
        if table is not None:
            self.changes += 1
            context.router.placed(table.encode())

    def _next(self, table: Table, change: str) -> Table | None:
        if change == "move":
            return self._move(table)
        if change == "birth":
            return self._birth(table)
        if change == "compact":
            return take_compact(table, self._random.randint(1, self._nodes.revision))
        shard = self._random.choice(list(table.shards))
        if change == "serve":
            return take_shard(table, shard, State.SERVING, table.shards[shard].slot, ())
        return take_shard(table, shard, State.RETIRING if change == "retire" else State.DROPPED, 0, ())

    def _move(self, table: Table) -> Table:
        start, end = self._random.choice(_SPANS)
        target = self._random.choice([n for n, known in table.shards.items() if known.state == State.SERVING])
        revision = self._nodes.revision
        move = Move(table.last_move + 1, start, end, table.owners_of(start, end), target)
        begun = take_move(table, move, revision)
        self._nodes.revision += 1
        return take_moved(begun, Moved(move.number, True, revision, 0), revision)

    def _birth(self, table: Table) -> Table | None:
        number = max(table.shards) + 1
        if number > _MOST_SHARDS:
            return None
        taken = {known.slot for known in table.shards.values() if known.state != State.DROPPED}
        slot = min(set(range(_SLOTS)) - taken)
        born = take_shard(table, number, State.FORMING, slot, (1, 2, 3))
        self._nodes.bear(number)
        return born

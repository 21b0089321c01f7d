"""Whether an action brought what was foreseen.

The hotter one of two leaders is compared, in shares of what both take: more or less load in all is no
effect of the action. Where the load is of another kind, nothing can be said. But a retirement must leave room
for load that returns: it was wrong if its target is hot soon, whatever the cause.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from cluster.growth.bounds import Bounds
from cluster.growth.facts import Facts
from cluster.growth.wishes import Kind, Wish, is_move
from cluster.placement.table import State, Table

_HALF = 0.5  # of the gain that was foreseen: less is wrong
_OTHER_LOAD = 0.5  # the sum of both may change by so much
_LOST_S = 3600.0  # an action that is not done by then says nothing; a move was wrong, and ends
_SLOWEST = 1 << 20  # bytes a second: a copy that goes on is faster


class Came(Enum):
    WAITING = "waiting"
    RIGHT = "right"
    WRONG = "wrong"
    UNKNOWN = "unknown"


class Foreseen(NamedTuple):
    wished: Wish
    begun_ms: int
    before: tuple[float, float]  # what source and target took
    last_shard: int  # the highest id then
    last_move: int
    done_ms: int = 0  # when it was seen to be done; 0: not yet

    @classmethod
    def begin(cls, wished: Wish, facts: Facts) -> Foreseen:
        table = facts.table
        return cls(wished, facts.now_ms, _taken(wished, facts) or (0.0, 0.0), max(table.shards),
                   table.last_move)

    def look(self, facts: Facts, limits: Bounds) -> tuple[Foreseen, Came, str]:
        """It as it is now, what came of it, and that in words."""
        wished, table, now_ms = self.wished, facts.table, facts.now_ms
        if not self.done_ms:
            lost_s = max(_LOST_S, wished.size_bytes / _SLOWEST if is_move(wished) else 0.0)
            if now_ms - self.begun_ms >= lost_s * 1000:
                stuck = Came.WRONG if self.under_way(table) else Came.UNKNOWN
                return self, stuck, f"it was not done within {lost_s / 60:.0f} minutes"
            if wished.kind == Kind.ADD:
                return self._added(facts)
            if not is_move(wished):
                gone = table.shards[wished.shard].state == State.DROPPED
                return self, Came.RIGHT if gone else Came.WAITING, "the shard has retired" if gone else ""
            if table.move is not None or table.last_move == self.last_move:
                return self, Came.WAITING, ""
            if table.owners_of(wished.start, wished.end) != (wished.target,):
                return self, Came.UNKNOWN, "the move was cancelled"
            return self._replace(done_ms=now_ms), Came.WAITING, ""
        if now_ms - self.done_ms < limits.settle_s * 1000:
            return self, Came.WAITING, ""
        taken = _taken(wished, facts)
        if taken is None:
            return self, Came.UNKNOWN, "a leader does not tell any more"
        return self, *self._compared(taken, limits)

    def under_way(self, table: Table) -> int:
        """The number of its move, while that goes on; else 0."""
        move = table.move
        return move.number if move is not None and move.number == self.last_move + 1 else 0

    def _added(self, facts: Facts) -> tuple[Foreseen, Came, str]:
        newer = [known.state for shard, known in facts.table.shards.items() if shard > self.last_shard]
        if State.SERVING in newer:
            return self, Came.RIGHT, "the shard serves"
        if newer and all(state == State.DROPPED for state in newer) and facts.now_ms - self.begun_ms > 1000:
            return self, Came.WRONG, "the shard was not born"
        return self, Came.WAITING, ""

    def _compared(self, taken: tuple[float, float], limits: Bounds) -> tuple[Came, str]:
        wished = self.wished
        sum_before, sum_now = sum(self.before), sum(taken)
        foreseen = wished.source_cpu, wished.target_cpu
        text = (f"shards {wished.shard} and {wished.target} took {_percents(self.before)}; foreseen were "
                f"{_percents(foreseen)}, and {_percents(taken)} came")
        if wished.kind == Kind.RETIRE and taken[1] > limits.hot:
            return Came.WRONG, f"{text}: it is hot"
        if not sum_before > 0 or not sum_now > 0 or abs(sum_now / sum_before - 1) > _OTHER_LOAD:
            return Came.UNKNOWN, f"{text}: the load is another one"
        if wished.kind == Kind.RETIRE:
            return Came.RIGHT, text
        hotter = [max(pair) / sum(pair) for pair in (self.before, foreseen, taken)]
        gain, came = hotter[0] - hotter[1], hotter[0] - hotter[2]
        return (Came.RIGHT if came >= _HALF * gain else Came.WRONG), text


def _percents(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.0%} and {pair[1]:.0%} of a CPU"


def _taken(wished: Wish, facts: Facts) -> tuple[float, float] | None:
    found = [facts.shards.get(shard) for shard in (wished.shard, wished.target)]
    return None if found[0] is None or found[1] is None else (found[0].cpu, found[1].cpu)

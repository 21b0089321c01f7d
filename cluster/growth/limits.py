"""What speaks against an action now: how the cluster stands, and what happened lately."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from cluster.features.births import running
from cluster.growth.bounds import Bounds
from cluster.growth.facts import Facts
from cluster.growth.wishes import Kind, Wish, is_move, live_bytes
from cluster.placement.table import Move, State, Table, before

_HOUR_S = 3600
_MOST_MOVES = 64  # that are remembered


class Moved(NamedTuple):
    number: int
    start: bytes
    end: bytes
    at_ms: int  # when it began, as this node saw it


class Past:
    """What this node 0 has seen of moves and births, whether it led or not. What it did not see because its
    process is younger counts as if it were just now."""

    def __init__(self, table: Table, now_ms: int) -> None:
        self.moves: deque[Moved] = deque(maxlen=_MOST_MOVES)
        self.since_ms = now_ms
        self.unseen = table.last_move > 0
        self._last = table.last_move
        self.born_ms = dict.fromkeys(table.shards, now_ms)
        self.compacted = (-1, now_ms)  # the newest compaction, and when it was seen
        if table.move is not None:
            self._began(table.move, now_ms)

    def took(self, table: Table, now_ms: int) -> None:
        """A table is applied here."""
        for shard in table.shards:
            self.born_ms.setdefault(shard, now_ms)
        if table.move is not None and table.move.number > self._last:
            self._began(table.move, now_ms)
        elif table.last_move > self._last:  # it came and went between two tables
            self.unseen, self.since_ms = True, now_ms
        self._last = max(self._last, table.last_move)

    def _began(self, move: Move, now_ms: int) -> None:
        self._last = move.number
        self.moves.append(Moved(move.number, move.start, move.end, now_ms))

    def compaction(self, revision: int, now_ms: int) -> None:
        if revision != self.compacted[0]:
            self.compacted = revision, now_ms if self.compacted[0] >= 0 else now_ms - _HOUR_S * 1000

    def after(self, now_ms: int, seconds: float) -> list[Moved]:
        return [moved for moved in self.moves if now_ms - moved.at_ms < seconds * 1000]


class Debt:
    """Bytes that were moved, paid back at a tenth of the live bytes an hour. So a move that takes more than
    that waits for nothing, and the next one for longer. ``kept``: those that former owners still have."""

    def __init__(self) -> None:
        self.kept: float | None = None  # None: not known yet
        self._bytes = 0.0
        self._at_ms = 0
        self._last_move = 0  # before the one that was added last

    def look(self, facts: Facts) -> None:
        if not facts.table.past:
            if not self._goes_on(facts):
                self.kept = 0.0
        elif self.kept is None:  # others moved it
            self.kept = live_bytes(facts.shards)

    def _goes_on(self, facts: Facts) -> bool:
        """Whether what was added may still become a past: a move takes as long as its copy. One that never
        began is forgotten after an hour."""
        if facts.table.move is not None:
            return True
        begun = facts.table.last_move > self._last_move
        return bool(self.kept) and not begun and facts.now_ms - self._at_ms < _HOUR_S * 1000

    def add(self, size_bytes: float, now_ms: int, an_hour: float, last_move: int = 0) -> None:
        """A move begins behind move ``last_move``."""
        self._bytes = self.now(now_ms, an_hour) + size_bytes
        self.kept = (self.kept or 0.0) + size_bytes
        self._at_ms = now_ms
        self._last_move = last_move

    def now(self, now_ms: int, an_hour: float) -> float:
        return max(self._bytes - an_hour * (now_ms - self._at_ms) / 1000 / _HOUR_S, 0.0)


def an_hour(facts: Facts, limits: Bounds) -> float:
    """Bytes that may move in an hour."""
    return max(limits.moved * live_bytes(facts.shards), limits.small_bytes)


def holds(facts: Facts, wished: Wish, past: Past, debt: Debt, elected_ms: int, limits: Bounds) -> list[str]:
    """Why this is not done now; empty: nothing speaks against it."""
    return [*_standing(facts, elected_ms, limits), *_lately(facts, wished, past, debt, limits)]


def _standing(facts: Facts, elected_ms: int, limits: Bounds) -> list[str]:
    found = []
    if (left := limits.after_election_s - (facts.now_ms - elected_ms) / 1000) > 0:
        found.append(f"a leader was elected, or this one began, less than {limits.after_election_s:.0f} s "
                     f"ago: {left:.0f} s more")
    if facts.older:
        found.append(f"hosts run an older version: {', '.join(facts.older)}")
    if down := sorted(name for member, name in facts.members.items() if member not in facts.hosts):
        found.append(f"hosts are down, or do not tell: {', '.join(down)}")
    full = [member for member, host in facts.hosts.items() if host.free_disk < limits.free_disk]
    if full:
        names = ", ".join(sorted(facts.members.get(member, f"{member:x}") for member in full))
        found.append(f"less than {limits.free_disk:.0%} of the disk is free at {names}")
    if facts.alarms:
        found.append("an alarm is raised")
    if not facts.settled:
        found.append("members change")
    for shard in running(facts.table):
        told = facts.shards.get(shard)
        if facts.table.shards[shard].state != State.SERVING:
            found.append(f"shard {shard} is {facts.table.shards[shard].state.name.lower()}")
        elif told is None:
            found.append(f"shard {shard}'s leader does not tell")
        elif told.behind < 0 or told.behind > limits.behind:
            found.append(f"a replica of shard {shard} is behind, or not heard")
    if facts.table.move is not None:
        found.append(f"move {facts.table.move.number} goes on")
    return found


def _lately(facts: Facts, wished: Wish, past: Past, debt: Debt, limits: Bounds) -> list[str]:
    now_ms, found = facts.now_ms, []
    if wished.kind == Kind.RETIRE:
        if now_ms - past.born_ms.get(wished.shard, now_ms) < limits.retire_age_s * 1000:
            found.append(f"shard {wished.shard} is younger than {limits.retire_age_s:.0f} s, as far as is "
                         f"known")
        if now_ms - past.compacted[1] >= _HOUR_S * 1000:
            found.append("nothing was compacted for an hour: a shard that gave keys away keeps their past")
    if wished.kind != Kind.RETIRE and len(facts.table.spans) >= limits.spans:
        found.append(f"the table has {len(facts.table.spans)} spans: compact, or move neighbours together")
    if not is_move(wished):
        return found
    if not facts.moves:
        found.append("keys cannot move yet")
    if wished.size_bytes > facts.room:
        found.append(f"a copy needs about {wished.size_bytes} bytes, and what the quota and the disk leave "
                     f"it is {max(facts.room, 0)}")
    # what was not seen may have been any span, and as many as are allowed
    unseen_ms = now_ms - past.since_ms if past.unseen else _HOUR_S * 1000
    rests = [moved for moved in past.after(now_ms, limits.span_rest_s)
             if before(moved.start, wished.end) and before(wished.start, moved.end)]
    if rests or unseen_ms < limits.span_rest_s * 1000:
        found.append(f"keys of this span moved less than {limits.span_rest_s:.0f} s ago")
    if len(past.after(now_ms, _HOUR_S)) >= limits.moves or unseen_ms < _HOUR_S * 1000:
        found.append(f"{limits.moves:.0f} moves began within an hour, as far as is known")
    room = max(limits.kept * live_bytes(facts.shards), limits.small_bytes)
    if debt.kept and debt.kept + wished.size_bytes > room:
        found.append("former owners keep what moved: compact, so that they drop it")
    allowed = an_hour(facts, limits)
    owed = debt.now(now_ms, allowed)
    if owed > 0 and owed + wished.size_bytes > allowed:
        found.append(f"moves of the last hours took {owed:.0f} bytes more than {limits.moved:.0%} of all an "
                     f"hour")
    return found

"""The policy in time: what the facts have asked for long enough, what is done about it, what came of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from cluster.growth.bounds import Bounds
from cluster.growth.facts import Facts
from cluster.growth.foreseen import Came, Foreseen
from cluster.growth.limits import Debt, Past, an_hour, holds
from cluster.growth.wishes import About, Kind, Wish, is_move, wish

_DAY_MS = 24 * 3600 * 1000  # a shard that was missed after one retired stays for so long


@dataclass(frozen=True, slots=True)
class Advice:
    """At one look."""

    wished: Wish | None = None
    for_s: float = 0.0  # how long the facts have asked for it
    holds: tuple[str, ...] = ()  # why it is not done now; empty: it may be
    cancels: int = 0  # the number of its own move, which does not end

    @property
    def given(self) -> bool:
        """Whether it was asked for long enough to be told."""
        return self.wished is not None and not (self.holds and self.holds[0] == NOT_YET)

    @property
    def due(self) -> Wish | None:
        """What may be done now."""
        return self.wished if not self.holds and self.wished and self.wished.kind != Kind.SAY else None


NOT_YET = "it has to be so for longer"


@dataclass
class Told:
    """What has come of actions."""

    came: Counter[Came] = field(default_factory=Counter)
    last: str = ""  # what came of the last one
    stopped: str = ""  # why nothing is done any more


class Policy:
    """Of one leadership of shard 0."""

    def __init__(self, limits: Bounds, past: Past, now_ms: int) -> None:
        self.limits = limits
        self.told = Told()
        self._past = past
        self._debt = Debt()
        self._since: tuple[About, int] | None = None
        self._elected_ms = now_ms
        self._leaders: dict[int, tuple[int, int]] = {}
        self._foreseen: Foreseen | None = None
        self._wrong_ms: list[int] = []
        self._stuck = 0  # a move that it began, and gives up
        self._refused: tuple[str, int] | None = None
        self._retired_ms = -_DAY_MS
        self._missed_ms = -_DAY_MS  # a shard was added within a day of a retirement

    def look(self, facts: Facts) -> Advice:
        """At the facts of now."""
        advice, move = self._look(facts), facts.table.move
        if move is None or move.number != self._stuck:
            self._stuck = 0
        return replace(advice, cancels=self._stuck)

    def _look(self, facts: Facts) -> Advice:
        now_ms = facts.now_ms
        self._past.compaction(facts.compact_revision, now_ms)
        self._debt.look(facts)
        self._elections(facts)
        self._compare(facts)
        wished = wish(facts, self.limits, self._since and self._since[0])
        if wished is None:
            self._since = None
            return Advice()
        if self._since is None or self._since[0] != wished.about:
            self._since = wished.about, now_ms
        for_s = (now_ms - self._since[1]) / 1000
        needed = self.limits.retire_for_s if wished.kind == Kind.RETIRE else self.limits.for_s
        if for_s < needed:
            return Advice(wished, for_s, (NOT_YET,))
        found = holds(facts, wished, self._past, self._debt, self._elected_ms, self.limits)
        if self._foreseen is not None:
            found.append("what the last action brings is not known yet")
        if self._refused is not None and now_ms - self._refused[1] < self.limits.refused_s * 1000:
            found.append(f"it was refused: {self._refused[0]}")
        if wished.kind == Kind.RETIRE and now_ms - self._missed_ms < _DAY_MS:
            found.append("a shard that had retired was missed within a day")
        if self.told.stopped:
            found.append(self.told.stopped)
        return Advice(wished, for_s, tuple(found))

    def began(self, wished: Wish, facts: Facts) -> None:
        """The action is under way."""
        self._refused = None
        self._foreseen = Foreseen.begin(wished, facts)
        if wished.kind == Kind.RETIRE:
            self._retired_ms = facts.now_ms
        elif wished.kind == Kind.ADD and facts.now_ms - self._retired_ms < _DAY_MS:
            self._missed_ms = facts.now_ms
        if is_move(wished):
            self._debt.add(
                wished.size_bytes, facts.now_ms, an_hour(facts, self.limits), facts.table.last_move)

    def refused(self, why: str, now_ms: int) -> None:
        self._refused = why, now_ms

    def _elections(self, facts: Facts) -> None:
        for shard, told in facts.shards.items():
            known = self._leaders.get(shard)
            if known is not None and known != (told.leader, told.term):
                self._elected_ms = facts.now_ms
            self._leaders[shard] = told.leader, told.term

    def _compare(self, facts: Facts) -> None:
        if self._foreseen is None:
            return
        self._foreseen, came, text = self._foreseen.look(facts, self.limits)
        if came == Came.WAITING:
            return
        self._stuck = self._foreseen.under_way(facts.table)
        self.told.came[came] += 1
        self.told.last = f"{self._foreseen.wished.kind.value}: {came.value}: {text}"
        self._foreseen = None
        if came == Came.WRONG:
            self._wrong_ms = [at for at in self._wrong_ms if facts.now_ms - at < _DAY_MS] + [facts.now_ms]
            if len(self._wrong_ms) >= self.limits.wrong:
                self.told.stopped = (f"{len(self._wrong_ms)} actions within a day did not bring what was "
                                     f"foreseen: nothing is done any more; the last: {text}")

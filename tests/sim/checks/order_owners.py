"""Whose keys are whose, folded anew from what is committed, in the plainest way (I19, G3 to G5)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from cluster.effects import later_puts, records
from cluster.effects.records import Item, items
from cluster.evaluate.spans import holds
from cluster.pb import kv_pb2
from cluster.placement.base import Base
from cluster.placement.changes import read_move, read_moved
from cluster.placement.table import END, Move, State
from tests.sim.world.order_world import Violation

_EVER = 1 << 62  # more than any revision


class Switched(NamedTuple):
    move: Move
    revision: int
    order_index: int

    def has(self, key: bytes) -> bool:
        return holds((self.move.start, self.move.end), key)


@dataclass
class Owners:
    base: Base
    move: Move | None = None
    switched: list[Switched] = field(default_factory=list)
    cancelled: int = 0
    first: dict[int, State] = field(init=False)  # shards of the base
    born: dict[int, State] = field(default_factory=dict)  # the others
    # of these that have had keys: the order records since when, and from when on no more (None: they have)
    _asked: dict[int, tuple[int, int | None]] = field(default_factory=dict)
    _compacted: int = 0

    def __post_init__(self) -> None:
        self.first = dict.fromkeys(range(self.base.shards), State.SERVING)

    @property
    def others(self) -> list[int]:
        """Shards that are in the order, without 0."""
        return sorted(
            shard for shard, state in (*self.first.items(), *self.born.items())
            if shard and state in (State.SERVING, State.RETIRING))

    def must_know(self, shard: int, index: int, applied: int) -> bool:
        """Whether a shard's leader that has applied the order up to ``applied`` lacks a control record that
        it might contradict (I20): it has keys, now or in a past that may be asked for, or thinks so."""
        if self.dropped(shard):  # G13: nothing of it counts
            return False
        first = shard in self.first
        since, until = self._asked.get(shard, (0 if first else index, None))
        return since < index and applied < (index if until is None else min(until, index))

    def dropped(self, shard: int) -> bool:
        """Hosts remove its files."""
        return (self.first if shard in self.first else self.born).get(shard) == State.DROPPED

    def compacted(self, index: int, revision: int) -> None:
        """A compaction stands in the order."""
        self._compacted = max(revision, self._compacted)
        self._look(index)

    def _look(self, index: int) -> None:
        cuts = {cut for s in self.switched for cut in (s.move.start, s.move.end) if cut != END}
        ends = dict(pairwise([*sorted(cuts | {END}), END]))  # END is the first key, too
        for shard in (*self.first, *self.born):
            asked = any(shard in self._owners(cut, end, _EVER) for cut, end in ends.items()) or any(
                switch.has(cut) and shard in self._owners(cut, end, switch.revision)
                for switch in self.switched if switch.revision >= self._compacted
                for cut, end in ends.items())
            since, until = self._asked.get(shard, (0, None) if shard in self.first else (index, index))
            if asked:
                self._asked[shard] = (since if until is None else index), None
            elif until is None:
                self._asked[shard] = since, index

    def shard(self, index: int, shard: int, state: State) -> None:
        """A shard is another's than before (G12 to G14)."""
        states = self.first if shard in self.first else self.born
        what, before = f"shard {shard} is {state.name} in {index}", states.get(shard)
        if state == State.FORMING:
            if before is not None:
                raise Violation("G13 ids are used once", what)
            if forming := [other for other, known in self.born.items() if known == State.FORMING]:
                raise Violation("G14 one shard forms at a time", f"{what}, as {forming}")
        elif before is None or (state != State.DROPPED and before != state - 1) or (
                state == State.DROPPED and before not in (State.FORMING, State.RETIRING)):
            raise Violation("G13 a shard forms, serves, retires and is dropped", f"{what}, it was {before}")
        states[shard] = state

    def cut(self, index: int, shard: int) -> None:
        """A cut of a shard stands in the order."""
        if self.born.get(shard) == State.FORMING:
            raise Violation("G12 a first cut stands behind its shard's record", f"shard {shard} in {index}")
        if {**self.first, **self.born}.get(shard, State.DROPPED) == State.DROPPED:
            raise Violation("G13 a dropped shard has no cut", f"shard {shard} in {index}")

    def of(self, key: bytes, revision: int) -> int:
        """The owner of a key at a revision."""
        for switch in reversed(self.switched):
            if switch.revision < revision and switch.has(key):
                return switch.move.target
        return self.base.shard_of(key)

    def _owners(self, start: bytes, end: bytes, revision: int) -> tuple[int, ...]:
        """Of a span that no move has parted."""
        if any(switch.revision < revision and switch.has(start) for switch in self.switched):
            return (self.of(start, revision),)
        return self.base.shards_of(start, b"" if end == start + b"\0" else end)

    def begun(self, data: bytes, at: int, to: int) -> None:
        move = read_move(data, at, to)
        if self.move is not None:
            raise Violation("G14 one move at a time", f"{move} during {self.move}")
        self.move = move

    def ended(self, index: int, data: bytes, at: int, states: dict[int, dict[bytes, Any]], now: int) -> None:
        moved, move = read_moved(data, at), self.move
        if move is None or move.number != moved.number:
            raise Violation("G1 what ends was under way", f"{moved} in {index}, {move}")
        self.move = None
        if not moved.switched:
            self.cancelled += 1
            return
        span = move.start, move.end

        def rows(revision: int) -> dict[bytes, Any]:
            return {key: kv for key, kv in states[revision].items() if holds(span, key)}

        if rows(moved.source_revision) != rows(now):
            raise Violation("G4 what moves does not change from R_b to R_s",
                            f"{move} in {index}: {moved.source_revision} to {now}")
        if len(rows(now)) != moved.live:
            raise Violation("G5 a switch names the number of live keys", f"{moved} in {index}: {rows(now)}")
        self.switched.append(Switched(move, now, index))
        self._look(index)

    def wrote(self, index: int, shard: int, keys: Iterable[bytes], revision: int) -> None:
        """A shard's effect stands in the order at a revision."""
        if not self.switched:
            return
        for key in keys:
            if self.of(key, revision) != shard:
                raise Violation("G3 nothing of a source behind the switch",
                                f"{key!r} at {revision} by shard {shard} in {index}: {self.switched[-1]}")

    def check_base(self, who: str, number: int, revision: int, base: dict[bytes, bytes],
                   states: dict[int, dict[bytes, Any]]) -> None:
        """What a target's replica has of a span where it applies the switch."""
        switch = next(s for s in self.switched if s.move.number == number)
        if switch.revision != revision:
            raise Violation("G2 a switch stands at one revision", f"{who} at {revision}: {switch}")
        want = {key: kv for key, kv in states[revision].items() if switch.has(key)}
        have = {key: kv_pb2.KeyValue.FromString(kv) for key, kv in base.items()}
        if want != have:
            raise Violation("G5 a target has exactly the source's live rows",
                            f"{who} at {revision}, {switch.move}: {have}, not {want}")


def keys_of(data: bytes, kind: int, at: int, to: int) -> list[bytes]:
    """The single keys that an effect names."""
    if kind in (Item.TXN, Item.TXN_LONG):
        return [key for inner in items(data, at, to) for key in keys_of(data, *inner)]
    if kind == Item.PUTS:
        return list(records.read_puts(data, at, to).keys)
    if kind == Item.PUTS_LATER:
        return list(later_puts.read(data, at, to).keys)
    if kind == Item.DELETE:
        return [data[at:to]]
    if kind in (Item.PUT, Item.PUT_NEW, Item.PUT_REF):
        return [records.key_of(data, kind, at, to)]
    return []

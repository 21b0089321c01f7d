"""The sequencer's machine for a move (growth.md, section 4).

1. *Copying*, from MOVE on: hosts say how far their copies are. All of them have to be close, in the end.
2. *Switching*: the coordinator tries a :class:`~cluster.order.moving.switch.Switch`. If it fails, a pause
   follows, twice as long each time, and later ones may take longer.
3. MOVED ends it: by the switch, or cancelled at any time before.

It has no state that a later sequencer needs: that reads the table, and hears the hosts again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from cluster.order.moving.switch import Switch, limit_of
from cluster.order.prepare import Base
from cluster.order.sequencing.coordinator import Coordinator
from cluster.placement import Placement, Table
from cluster.placement.table import Move

_COPIED = struct.Struct("<QBIQQ")
UNKNOWN_LAG_MS = 1 << 31  # and none is longer
NO_ROOM_LAG_MS = UNKNOWN_LAG_MS + 1  # the copy waits for room on its host; before it was told, not known
CLOSE_MS = 50  # a copy that lacks no more than this is close
PATIENCE_MS = 60_000  # with hosts whose copies are not close; then a majority is enough, if all have room
_SAID_MS = 5_000  # what a host said counts so long
FIRST_PAUSE_MS, _MOST_PAUSE = 1_000, 64  # after a failed switch; then doubled, up to so many times
ALARM_AFTER = 10  # switches of one move that failed: an operator's matter (G15)


class Copied(NamedTuple):
    """What a host says of its copy."""

    move: int
    whole: bool  # every page is there
    lag_ms: int  # behind its source
    keys: int = 0  # that are there
    size: int = 0  # bytes that have come since this node's start

    def encode(self) -> bytes:
        return _COPIED.pack(*self)

    @classmethod
    def decode(cls, data: bytes) -> Copied:
        """struct.error: it is none."""
        move, whole, lag_ms, keys, size = _COPIED.unpack(data)
        return cls(move, bool(whole), lag_ms, keys, size)


class Hosts(NamedTuple):
    voters: frozenset[int]
    live: frozenset[int]
    leaders: Mapping[int, int]  # shard -> host


class Step(Enum):
    IDLE = "idle"
    COPYING = "copying"
    SWITCHING = "switching"
    PAUSING = "pausing"


@dataclass(slots=True)
class _Heard:
    copied: Copied
    at_ms: int


class Mover:
    """Of one sequencer's term."""

    def __init__(
        self, placement: Placement, coordinator: Coordinator[Any], copied: Callable[[Base], bool],
        patience_ms: int = PATIENCE_MS, pause_ms: int = FIRST_PAUSE_MS,
        countable: Callable[[], bool] = lambda: True,
    ) -> None:
        """``copied``: whether this host's copy is so far, where shard 0 is the target. ``countable``:
        whether shard 0's keys are counted without walking them."""
        self._placement = placement
        self._coordinator = coordinator
        self._copied = copied
        self._patience_ms = patience_ms
        self._pause_ms = pause_ms
        self._countable = countable
        self._heard: dict[int, _Heard] = {}
        self._number = 0  # of the move that this is about
        self._since_ms = 0
        self._waits_for: list[int] = []  # hosts
        self.failed = 0  # switches of this move
        self._again_ms = 0
        self.step = Step.IDLE

    # -- what an operator changes (``cluster.features.moves``)

    @property
    def settled(self) -> bool:
        return self._coordinator.generations.settled

    def begun(self) -> None:
        """A move begins, or ends without a switch: its item is about to be logged."""
        self._coordinator.generations.appended()

    def stop(self) -> None:
        """End the switch that is under way, if there is one."""
        self._coordinator.end_switch()

    @property
    def _table(self) -> Table:
        return self._placement.table

    # -- the move

    def heard(self, host: int, copied: Copied, now_ms: int) -> None:
        self._heard[host] = _Heard(copied, now_ms)

    def run(self, now_ms: int, hosts: Hosts) -> None:
        """Once a tick, where a record may be made."""
        move = self._table.move
        if move is None or not self.settled:
            return
        if move.number != self._number:
            self._number, self._since_ms, self.failed, self._again_ms = move.number, now_ms, 0, 0
            self.step = Step.COPYING
        if self.step is Step.SWITCHING or now_ms < self._again_ms:
            return
        lacking = self._lacking(move, now_ms, hosts)
        self._waits_for = sorted(lacking - {0})  # without those of shards that have no leader
        if not lacking:
            self.step = Step.SWITCHING
            self._coordinator.switch(
                Switch(move, self._copied, lambda done: self._ended(done, now_ms), countable=self._countable,
                       limit_ms=limit_of(self.failed)),
                now_ms)

    def _ended(self, done: bool, began_ms: int) -> None:
        if done:
            self.step = Step.IDLE
            return
        pause_ms = self._pause_ms * min(1 << self.failed, _MOST_PAUSE)
        self.failed += 1
        self._again_ms, self.step = began_ms + pause_ms, Step.PAUSING

    def _lacking(self, move: Move, now_ms: int, hosts: Hosts) -> frozenset[int]:
        """The hosts whose copies have to be closer. Lag is looked at before anything is locked."""
        close = {
            host for host, said in self._heard.items()
            if said.copied.move == move.number and said.copied.whole and said.copied.lag_ms < CLOSE_MS
            and now_ms - said.at_ms < _SAID_MS}
        if move.target == 0:  # an elected follower without the base would hold up the order
            return hosts.voters - close
        leaders = {hosts.leaders.get(shard, 0) for shard in (*move.sources, move.target)}
        lacking = ((hosts.live & hosts.voters) | leaders) - close
        patient = now_ms - self._since_ms < self._patience_ms
        majority = 2 * len(close & hosts.voters) > len(hosts.voters)
        enough = not patient and majority and hosts.leaders.get(move.target, 0) in close
        return self._without_room(move.number) & hosts.live & hosts.voters if enough else lacking

    def _without_room(self, move: int) -> frozenset[int]:
        """The hosts that said so last. Behind a switch a copy goes on until the host is full, and stops its
        shard there, or all puts (NOSPACE). What was said long ago counts, too: a full host may be silent."""
        return frozenset(
            host for host, said in self._heard.items()
            if said.copied.move == move and said.copied.lag_ms == NO_ROOM_LAG_MS)

    def late(self, now_ms: int) -> bool:
        """Whether a move has waited for hosts for long."""
        move = self._table.move
        return (move is not None and move.number == self._number and bool(self._waits_for)
                and now_ms - self._since_ms >= self._patience_ms)

    def starves(self, now_ms: int) -> int:
        """The move, if a host's copy waits for room; 0: none does."""
        move = self._table.move
        if move is None or self.step is Step.SWITCHING:
            return 0
        return move.number if any(
            now_ms - self._heard[host].at_ms < _SAID_MS for host in self._without_room(move.number)) else 0

    @property
    def alarm(self) -> bool:
        return self.failed >= ALARM_AFTER

    def facts(self) -> dict[str, object]:
        """Every wait of a move has a figure (G15). Keys, bytes and lag (-1: not known, -2: it waits for
        room) are of each host that was heard."""
        move = self._table.move
        if move is None:
            return {}
        heard = {host: said.copied for host, said in self._heard.items() if said.copied.move == move.number}
        ours = move.number == self._number
        lags = {host: _told_lag(said.lag_ms) for host, said in heard.items()}
        return {
            "move": move.number, "start": move.start.hex(), "end": move.end.hex(),
            "sources": list(move.sources), "target": move.target,
            "step": (self.step if ours else Step.COPYING).value,
            "failed_switches": self.failed if ours else 0,
            "waits_for": [f"{host:x}" for host in self._waits_for] if ours else [],
            "without_room": [f"{host:x}" for host in sorted(self._without_room(move.number))],
            "hosts": {f"{host:x}": {"whole": said.whole, "keys": said.keys, "bytes": said.size,
                                    "lag_ms": lags[host]} for host, said in sorted(heard.items())}}


def _told_lag(lag_ms: int) -> int:
    if lag_ms < UNKNOWN_LAG_MS:
        return lag_ms
    return -2 if lag_ms == NO_ROOM_LAG_MS else -1

"""The sequencer's machine for a move (growth.md, section 4).

1. *Copying*, from MOVE on: hosts say how far their copies are. All of them have to be close, in the end.
2. *Switching*: the coordinator tries a :class:`~cluster.order.moving.switch.Switch`. If it fails, a pause
   follows, twice as long each time.
3. MOVED ends it: by the switch, or cancelled at any time before.

It has no state that a later sequencer needs: that reads the table, and hears the hosts again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from cluster.order.moving.switch import Switch
from cluster.order.sequencing.coordinator import Coordinator
from cluster.placement import Placement, Table
from cluster.placement.changes import Moved, move_item, moved_item, take_move
from cluster.placement.table import Move

CLOSE_MS = 50  # a copy that lacks no more than this is close
PATIENCE_MS = 60_000  # with hosts whose copies are not close; then a majority is enough
_SAID_MS = 5_000  # what a host said counts so long
FIRST_PAUSE_MS, _MOST_PAUSE = 1_000, 64  # after a failed switch; then doubled, up to so many times
ALARM_AFTER = 10  # switches of one move that failed: an operator's matter (G15)


class Copied(NamedTuple):
    """What a host says of its copy."""

    move: int
    whole: bool  # every page is there
    lag_ms: int  # behind its source


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
        self, placement: Placement, coordinator: Coordinator[Any], append: Callable[[bytes], None],
        copied: Callable[[int], int], patience_ms: int = PATIENCE_MS, pause_ms: int = FIRST_PAUSE_MS,
    ) -> None:
        """``append`` puts a control item into the open record. ``copied``: of a move, the revision up to
        which this host's copy is whole where shard 0 is the target."""
        self._placement = placement
        self._coordinator = coordinator
        self._append = append
        self._copied = copied
        self._patience_ms = patience_ms
        self._pause_ms = pause_ms
        self._heard: dict[int, _Heard] = {}
        self._number = 0  # of the move that this is about
        self._since_ms = 0
        self._cancels = 0  # the move that is to end
        self.failed = 0  # switches of this move
        self._again_ms = 0
        self.step = Step.IDLE

    # -- what an operator wants

    def refusal(self, start: bytes, end: bytes, target: int, revision: int) -> str:
        """Why a move must not begin now; empty: it may (G11, G14). By the fold's own functions."""
        if not self._coordinator.generations.settled:
            return "a change of placement is under way"
        try:
            take_move(self._table, self._move(start, end, target), revision)
        except AssertionError as e:
            return str(e)
        return ""

    def begin(self, start: bytes, end: bytes, target: int, revision: int) -> Move | None:
        """MOVE, in the open record; None: refused."""
        if self.refusal(start, end, target, revision):
            return None
        move = self._move(start, end, target)
        self._change(move_item(move))
        return move

    def cancel(self, number: int) -> bool:
        """End a move without a switch. False: there is no such move, or it has switched."""
        move = self._table.move
        if move is None or move.number != number:
            return False
        self._cancels = number
        return True

    def _move(self, start: bytes, end: bytes, target: int) -> Move:
        table = self._table
        return Move(table.last_move + 1, start, end, table.owners_of(start, end), target)

    @property
    def _table(self) -> Table:
        return self._placement.table

    def _change(self, item: bytes) -> None:
        self._append(item)
        self._coordinator.generations.appended()

    # -- the move

    def heard(self, host: int, copied: Copied, now_ms: int) -> None:
        self._heard[host] = _Heard(copied, now_ms)

    def run(self, now_ms: int, hosts: Hosts) -> None:
        """Once a tick, where a record may be made."""
        move = self._table.move
        if move is None or not self._coordinator.generations.settled:
            return
        if move.number != self._number:
            self._number, self._since_ms, self.failed, self._again_ms = move.number, now_ms, 0, 0
            self.step = Step.COPYING
        if self.step is Step.SWITCHING:
            return
        if self._cancels == move.number:
            self._change(moved_item(Moved(move.number, False, 0, 0)))
            self.step = Step.IDLE
        elif now_ms >= self._again_ms and self._ready(move, now_ms, hosts):
            self.step = Step.SWITCHING
            self._coordinator.switch(
                Switch(move, self._copied, lambda done: self._ended(done, now_ms)), now_ms)

    def _ended(self, done: bool, began_ms: int) -> None:
        if done:
            self.step = Step.IDLE
            return
        pause_ms = self._pause_ms * min(1 << self.failed, _MOST_PAUSE)
        self.failed += 1
        self._again_ms, self.step = began_ms + pause_ms, Step.PAUSING

    def _ready(self, move: Move, now_ms: int, hosts: Hosts) -> bool:
        """Lag is looked at before anything is locked."""
        close = {
            host for host, said in self._heard.items()
            if said.copied.move == move.number and said.copied.whole and said.copied.lag_ms < CLOSE_MS
            and now_ms - said.at_ms < _SAID_MS}
        if move.target == 0:  # an elected follower without the base would hold up the order
            return hosts.voters <= close
        leaders = {hosts.leaders.get(shard, 0) for shard in (*move.sources, move.target)}
        if (hosts.live & hosts.voters) | leaders <= close:
            return True
        patient = now_ms - self._since_ms < self._patience_ms
        majority = 2 * len(close & hosts.voters) > len(hosts.voters)
        return not patient and majority and hosts.leaders.get(move.target, 0) in close

    @property
    def alarm(self) -> bool:
        return self.failed >= ALARM_AFTER

    def statistics(self) -> dict[str, int | str]:
        """Every wait of a move has a figure (G15)."""
        return {"move": self._number, "step": self.step.value, "failed_switches": self.failed,
                "hosts_heard": len(self._heard)}

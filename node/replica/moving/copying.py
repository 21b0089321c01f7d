"""A target's copy of what moves to it, and the wait for it where the switch is to be applied (G5).

It asks its own host's nodes of the sources, over their ordinary links; while the order waits here for the
copy, another host's after three election timeouts. If no source has it any more, they have dropped it, and so
a majority of the target has it (G10): a peer's state is asked for. So it is if old rows do not go (G11).

A copy takes a fifth of a CPU here at most, and as much at its source; less while others wait
(``cluster.pacing.easing``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Protocol

import structlog

from cluster.effects.records import ITEM, Item, items
from cluster.order.moving.copier import TRIES, Answer, Ask, Batch, Copier
from cluster.order.moving.mover import NO_ROOM_LAG_MS, UNKNOWN_LAG_MS, Copied
from cluster.order.prepare import Base
from cluster.pacing.easing import LEAST_S, rest_s
from cluster.placement import Table
from cluster.placement.changes import MOVED_BYTES, read_moved
from cluster.placement.table import Move
from cluster.repeats import Repeats
from cluster.wire.frames import MOVES_SINCE
from cluster.wire.messages import Method, Status
from node.links.siblings import NodeLinks
from node.replica.moving.moved import MovedKeys
from node.replica.moving.sources import Sources
from node.replica.moving.steps import Steps
from node.replica.shards.linked import RoleNode
from node.storage import NoRoom

if TYPE_CHECKING:
    from node.replica.applying import Applies

log = structlog.get_logger("move")

_LOOK_S = 0.015
_AWAITED_S = 0.002  # the same while a switch waits for the copy
_REPORT_S, _COPYING_REPORT_S = 0.1, 0.5
_ANSWER_S = 1.0  # a question that is not answered by then is asked again
_OLD_ROWS_S = 0.2
_ROOM_S, _FULL_S = 1.0, 10.0  # until a copy without room looks again; after a write that the disk refused
_ELSEWHERE, _STATE = 3, 8  # election timeouts that the order waits before that is tried
_MOVED = ITEM.pack(Item.MOVED, MOVED_BYTES)  # bytes that seldom stand in a record without one


class CopyingNode(RoleNode, Protocol):
    applies: Applies


class CopyingRole(Protocol):
    @property
    def links(self) -> NodeLinks: ...

    def copy_grew(self) -> None:
        """The copy is further on: what waited for it may go on."""

    def report_copied(self, copied: Copied) -> None:
        """Tell the sequencer."""

    def ask_for_state(self) -> None:
        """Ask a peer for its state."""

    def promises(self, move: int) -> bool:
        """Whether the leader here has promised its copy to a switch that is undecided (G4)."""


class Copying:
    def __init__(
        self, node: CopyingNode, role: CopyingRole, moved: MovedKeys, sources: Sources,
        others: Callable[[], Collection[int]],
    ) -> None:
        """``others``: the cluster's other hosts."""
        common, loop = node.settings.common, node.loop
        self._node = node
        self._role = role
        self._moved = moved
        self._sources = sources
        self._loop = loop
        self._shard = node.settings.shard
        self._member_id = common.member_id
        self._election_s = common.election_timeout_ms / 1000
        self._others = others
        self._perf_counter = node.machine.perf_counter
        self._steps = Steps(loop, self._perf_counter)
        self._timer: asyncio.TimerHandle | None = None
        self._move: Move | None = None  # that goes on, as applied here
        self._closed = False
        self.copier: Copier | None = None
        self._asked: dict[int, float] = {}  # source -> when its question left
        self._level: dict[int, float] = {}  # source -> when it stood so, and all of that is copied
        self._tries = 0  # copies of this move that were wrong
        self._changed = 0  # the revision up to which events have changed it
        self._size = 0  # bytes that came
        self._rest_s = LEAST_S  # until the next question
        self._due = self._late_s = 0.0  # of the timer: when it goes off; how much later the last one did
        self._awaited = 0  # the revision up to which a switch wants the copy
        self._reported = 0.0
        self._waits_since = 0.0  # for a base: since when the order waits here
        self._asked_state = 0.0
        self._short = False  # it waits for room on this host
        self._full_until = 0.0  # the disk has refused a write; 0: it has taken what came since
        self._repeats = Repeats()
        self._round = 0

    # -- what else this node asks

    @property
    def moves(self) -> bool:
        """Whether keys move from here or to here."""
        move = self._move
        return move is not None and (move.target == self._shard or self._shard in move.sources)

    @property
    def hurries(self) -> bool:
        """Whether a switch is near, so that order records are wanted soon: a copy here or from here is whole.
        Asked in each turn."""
        move = self._move
        if move is None:
            return False
        if move.target == self._shard:
            return self.copier is not None and self.copier.whole
        return self._shard in move.sources and not self._sources.paging

    @property
    def waits(self) -> bool:
        """Whether the order waits here for a base (G5)."""
        return self._waits_since > 0.0

    def copied(self, base: Base, *, frozen: bool = False) -> bool:
        """Whether a move's copy is whole up to a revision. A copy with a wrong number of keys starts again.
        ``frozen``: what moves does not change any more from that revision on."""
        copier, copy = self.copier, self._moved.copy
        if copier is None or copier.move.number != base.move or self._steps.busy or copy is None:
            return False
        if copier.through < base.revision:
            if self._awaited < base.revision:
                self._awaited = base.revision
                self.look()
            return False
        if copy.live != base.live and (frozen or self._changed <= base.revision):
            self._is_wrong(copier, copy.live, base.live)
        return copy.live == base.live

    def _is_wrong(self, copier: Copier, live: int, wanted: int) -> None:
        if self._tries >= TRIES or self._node.applies.busy:
            return  # an alarm figure, and an operator (G15); or what is applied may have the switch
        self._tries += 1
        log.error("a copy has another number of keys than its sources", shard=self._shard,
                  move=copier.move.number, keys=live, wanted=wanted)
        self._anew(copier, copier.compacted(copier.move.sources[0]))

    def lacks(self, record: bytes) -> bool:
        """Whether a record is a switch to here whose base is not here (G5). Asked of each record."""
        if _MOVED not in record:
            return False
        lacks = any(self._lacks(record, at) for kind, at, _ in items(record) if kind == Item.MOVED)
        if not lacks:
            self._waits_since = 0.0
        elif not self._waits_since:
            self._waits_since = self._loop.time()
            self.look()
        return lacks

    def _lacks(self, record: bytes, at: int) -> bool:
        moved, move = read_moved(record, at), self._move
        if move is None or move.number != moved.number:
            return True  # the move's own record is applied first
        if not moved.switched or move.target != self._shard:
            return False
        return not self.copied(Base(moved.number, moved.source_revision, moved.live), frozen=True)

    # -- the copy

    def placed(self, table: Table | None) -> None:
        """A table was applied here."""
        self._move = None if table is None else table.move
        if self.moves or self._moved.copy is not None:
            self.look()

    def replaced(self) -> None:
        """Another state was installed, with its own copy."""
        self._steps.abandon()
        self.copier = None
        self._waits_since = 0.0
        self.placed(self._moved.table)
        self.look()

    def close(self) -> None:
        self._closed = True
        self._steps.abandon()
        if self._timer is not None:
            self._timer.cancel()

    def look(self) -> None:
        """Soon: what is due."""
        self._later(0.0)

    def _later(self, delay_s: float) -> None:
        if self._closed:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = self._loop.time() + delay_s
        self._timer = self._loop.call_later(delay_s, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._steps.busy:
            return  # which looks at its end
        move, copy = self._move, self._moved.copy
        mine = move is not None and move.target == self._shard
        if copy is not None and (move is None or not mine or copy.move != move.number):
            self.copier = None
            if not self._is_full():
                self._steps.run(self._tried(self._moved.drop_copy()), self._dropped)
            return
        if move is None or not mine:
            self.copier = None
            return
        self._miss_state(move)
        copier = self.copier
        if copier is None or copier.move.number != move.number:
            if not self._is_full():
                self._begin(move)
            return
        now = self._loop.time()
        self._late_s = max(0.0, now - self._due)
        for source, asked in list(self._asked.items()):
            if now - asked > _ANSWER_S:
                del self._asked[source]
                copier.lost(source)
        if self._lacks_room(copier, now):
            self._later(_ROOM_S)
        else:
            for ask in copier.asks():
                self._ask(copier, ask, now)
            self._next(copier)
        self._report(copier, now)
        if self._waits_since and copier.whole:
            self._role.copy_grew()  # it may have been whole before the order waited: then no answer says so

    def _next(self, copier: Copier) -> None:
        """Ask again after a rest; while a question is under way, see later whether it is lost."""
        if self._asked:
            self._later(_REPORT_S)
        elif copier.whole and copier.through < self._awaited:
            self._later(_AWAITED_S)
        else:
            self._later(max(_LOOK_S if copier.level else 0.0, self._rest_s))

    def _begin(self, move: Move) -> None:
        if self._node.applies.busy:
            self._later(_LOOK_S)  # G6: that run masks what was here as it met the table, and may cancel this
            return
        if self._moved.has_old_rows(move.start, move.end):
            self._later(_OLD_ROWS_S)  # G11: old rows go first
            return
        copier, copy = Copier(move), self._moved.copy
        self._tries = self._size = self._changed = self._awaited = 0
        batch = copier.begin(None if copy is None else copy.progress)
        self.copier = copier
        self._asked.clear()
        self._level.clear()
        log.info("copying keys that move here", shard=self._shard, move=move.number,
                 sources=list(move.sources), goes_on=batch is None)
        if batch is not None:
            self._anew(copier, batch)
        else:
            self.look()

    def _anew(self, copier: Copier, batch: Batch) -> None:
        self._asked.clear()
        self._level.clear()
        self._steps.run(self._tried(self._moved.begin(copier.move, batch)), self.look)

    # -- room

    def _lacks_room(self, copier: Copier, now: float) -> bool:
        """Whether the copy waits for room on this host."""
        why = self._node.upkeep.room.lacks(ends=copier.whole or self.waits)
        if why and self._repeats.news("room", now):
            log.warning("a copy of keys that move waits for room", shard=self._shard, why=why,
                        move=copier.move.number)
        elif self._short and not why:
            log.info("a copy of keys that move has room again", shard=self._shard, move=copier.move.number)
        if why and not self._short:
            self._node.upkeep.moved_rows_went()  # a copy before this one may count still
        self._short = why != ""
        return self._short

    def _tried(self, work: Iterator[None]) -> Iterator[None]:
        try:
            yield from work
        except NoRoom as error:
            self._is_refused(error)

    def _is_refused(self, error: NoRoom) -> None:
        """The disk is full: later the copy goes on from the row on it."""
        now = self._loop.time()
        self._full_until = now + _FULL_S
        if self.copier is not None:
            self._tell(self.copier, now)
        self.copier = None
        self._asked.clear()
        if self._repeats.news("full", now):
            log.error("the disk is full: a copy of keys that move waits", shard=self._shard, error=str(error))

    def _dropped(self) -> None:
        if self._moved.copy is None:
            self._node.upkeep.moved_rows_went()
        self.look()

    def _is_full(self) -> bool:
        """Whether the disk has refused a write just now: then it is tried again later."""
        left_s = self._full_until - self._loop.time()
        if left_s > 0:
            self._later(left_s)
        return left_s > 0

    # -- questions

    def _ask(self, copier: Copier, ask: Ask, now: float) -> None:
        link = self._role.links.find(self._host(now), ask.source)
        if link is None or (link.up and link.version < MOVES_SINCE):
            copier.lost(ask.source)
            return
        self._asked[ask.source] = now
        began = self._perf_counter()

        def came(status: int, body: bytes) -> bool:
            if self.copier is not copier or self._steps.busy or self._asked.get(ask.source) != now:
                return False
            if self._move != copier.move:
                return False  # it has ended meanwhile
            del self._asked[ask.source]
            waited_s = self._perf_counter() - began
            if status == Status.OK:
                self._came(copier, ask, body, now)
            else:
                copier.lost(ask.source)
            worked_s = self._perf_counter() - began - waited_s
            if copier.whole or self._waits_since:  # what is near its end, or the order waits for, goes on
                self._rest_s = rest_s(worked_s, 0.0)
            else:
                self._rest_s = rest_s(worked_s, waited_s, self._late_s)
            if not self._steps.busy:
                self._next(copier)
            return True

        link.request(Method.COPY, ask.encode(copier.move.number), came)
        self._role.links.flush()

    def _miss_state(self, move: Move) -> None:
        """Say so where the order has waited for long, and ask for a peer's state."""
        now = self._loop.time()
        waited_s = now - self._waits_since
        if not self._waits_since or waited_s <= _STATE * self._election_s:
            return
        if self._repeats.news(move.number, now):
            copy = self._moved.copy
            log.warning("the order waits here for keys that move", shard=self._shard, move=move.number,
                        waited_s=round(waited_s, 1), keys=0 if copy is None else copy.live,
                        wrong_copies=self._tries)
        # a state has all keys of the shard: where the copy lacks room, so does it
        if self._others() and not self._short and now - self._asked_state > self._election_s:
            self._asked_state = now
            self._role.ask_for_state()

    def _host(self, now: float) -> int:
        """Whose source is asked."""
        if not self._waits_since or not self._others():
            return self._member_id
        if now - self._waits_since <= _ELSEWHERE * self._election_s:
            return self._member_id
        self._round += 1
        hosts = [self._member_id, *sorted(self._others())]
        return hosts[self._round % len(hosts)]

    def _came(self, copier: Copier, ask: Ask, body: bytes, asked_at: float) -> None:
        answer = Answer.decode(body)
        if answer.compacted and (self._node.applies.busy or self._role.promises(copier.move.number)):
            # What was promised is not undone: once it is decided. And what is being applied may have the
            # switch, which was judged by this copy.
            copier.lost(ask.source)
            return
        before = copier.through
        batch = copier.take(ask, answer)
        if batch is not None and batch.anew:
            log.info("a copy starts again: its source has compacted the next changes", shard=self._shard,
                     move=copier.move.number, source=ask.source)
            self._anew(copier, batch)
        elif batch is not None:
            try:
                self._moved.stage(batch)
            except NoRoom as error:
                self._is_refused(error)
                return
            if batch.rows or ask.page:
                # a source that is behind tells of less than another has told already
                self._changed = max(self._changed, answer.revision + (answer.within > 0))
            self._size += len(body)
        if batch is None or not batch.anew:
            self._full_until = 0.0
        if answer.level:
            self._level[ask.source] = asked_at
        if copier.through > before:
            self._role.copy_grew()

    def _report(self, copier: Copier, now: float) -> None:
        if now - self._reported < (_REPORT_S if copier.whole else _COPYING_REPORT_S):
            return
        self._tell(copier, now)

    def _tell(self, copier: Copier, now: float) -> None:
        self._reported = now
        copy = self._moved.copy
        level = [self._level.get(source, 0.0) for source in copier.move.sources]
        lag_ms = min(int((now - min(level)) * 1000), UNKNOWN_LAG_MS) if all(level) else UNKNOWN_LAG_MS
        if self._short or self._full_until:
            lag_ms = NO_ROOM_LAG_MS
        self._role.report_copied(Copied(
            copier.move.number, copier.whole, lag_ms, 0 if copy is None else copy.live, self._size))

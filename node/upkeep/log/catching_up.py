"""The log behind a transferred state is kept for its receiver until it has caught up, within a bound.

The leader logs on during a transfer and after it. If it logs more than may be kept, the transfer is lost,
and under the same load so is the next. So a receiver that ran out of log gets more time: once half of what
may be kept is used, the leader logs a quarter of what it would, then a sixteenth, then a sixty-fourth. The
first transfer slows nothing. A silent replica is not waited for, nor is any log kept for it.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.raft import Raft, Role
from cluster.raft.types import PeerStatus

if TYPE_CHECKING:
    from node.storage import RaftLog

_SILENT_MS = 10_000
_SLOWER_BY, _SLOWEST_BY = 4, 64  # each time; at most
_LONGEST_PAUSE_S = 5.0


@dataclass(slots=True)
class _Held:
    index: int  # the log is needed behind it
    began_s: float
    transfer: bool = True  # the state is on its way
    pace: float = 0.0  # bytes a second at which the first half of what may be kept was logged


class CatchingUp:
    """Indexes are of the node's log, times of its clock."""

    def __init__(self) -> None:
        self._held: dict[int, _Held] = {}
        self._ran_out: dict[int, int] = {}  # peer: lost transfers since it had caught up last
        self._until_s = 0.0

    def begins(self, peer: int, index: int, now_s: float) -> None:
        """A state at ``index`` or behind it is about to be sent."""
        self._held[peer] = _Held(index, now_s)

    def sent(self, peer: int, index: int | None) -> None:
        """The peer has installed a state at ``index``; None: it has not."""
        held = self._held.get(peer)
        if held is None:
            return
        if index is None:
            del self._held[peer]
        else:
            held.index, held.transfer = index, False

    def needed(
        self, least: int, kept_anyway: int, peers: Mapping[int, PeerStatus], now_ms: int
    ) -> int | None:
        """The log behind this must be kept; None: none. ``least``: it may be kept behind that;
        ``kept_anyway``: a replica there has caught up; ``peers``: a leader's."""
        for peer, held in list(self._held.items()):
            status = peers.get(peer)
            if status is None or now_ms - status.heard_ms >= _SILENT_MS:
                del self._held[peer]
                continue
            if not held.transfer:
                held.index = max(held.index, status.match)
                if status.match >= kept_anyway:
                    del self._held[peer]
                    self._ran_out.pop(peer, None)
                    continue
            if held.index < least:
                del self._held[peer]
                self._ran_out[peer] = self._ran_out.get(peer, 0) + 1
        for peer in [peer for peer in self._ran_out if peer not in self._held]:
            status = peers.get(peer)
            if status is None or status.match >= kept_anyway:  # another leader's now, or it came by the log
                del self._ran_out[peer]
        return min((held.index for held in self._held.values()), default=None)

    @property
    def slows(self) -> int | None:
        """The index behind which a slowed log is needed; None: no slowing."""
        slowed = self._slowed() if self._ran_out else None
        return slowed.index if slowed is not None else None

    def _slowed(self) -> _Held | None:
        again = [held for peer, held in self._held.items() if peer in self._ran_out]
        return min(again, key=lambda held: held.index, default=None)

    def pause_s(self, size: int, kept: int, room: int, now_s: float) -> float:
        """``size`` bytes were logged: seconds without any more. ``kept``: bytes behind :attr:`slows`, of
        ``room`` at most."""
        held = self._slowed()
        if held is None or kept < room // 2:
            return 0.0
        if not held.pace:
            held.pace = max(kept / max(now_s - held.began_s, 0.001), 1.0)
        worst = max(count for peer, count in self._ran_out.items() if peer in self._held)
        slower = min(_SLOWER_BY ** worst, _SLOWEST_BY)
        self._until_s = min(max(self._until_s, now_s) + size * slower / held.pace, now_s + _LONGEST_PAUSE_S)
        return self._until_s - now_s


class Slowing:
    """A leader's proposals, held back for replicas that ran out of its log."""

    def __init__(self, catching_up: CatchingUp, raft: Raft, raft_log: RaftLog, loop: AbstractEventLoop, *,
                 room_bytes: int, go_on: Callable[[], None]) -> None:
        """``room_bytes``: of the log may be kept for them. ``go_on`` is called when Raft may go on."""
        self._catching_up = catching_up
        self._raft = raft
        self._log = raft_log
        self._loop = loop
        self._room_bytes = room_bytes
        self._go_on = go_on

    def logged(self, slowed: int, size: int) -> None:
        """``size`` bytes were logged, while the log is needed behind ``slowed``."""
        if self._raft.role is not Role.LEADER:
            return
        pause_s = self._catching_up.pause_s(
            size, self._log.bytes_after(slowed), self._room_bytes, self._loop.time())
        if pause_s and not self._raft.held_back:
            self._raft.held_back = True
            self._loop.call_later(pause_s, self._ended)

    def _ended(self) -> None:
        self._raft.held_back = False
        self._go_on()

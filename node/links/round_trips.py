"""How long a frame takes to a peer and back: measured now and then, for
``etcd_network_peer_round_trip_time_seconds``."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterable

from cluster.histogram import ROUND_TRIP_S, Histogram
from cluster.wire.frames import PeerKind
from node.machine import Machine

ASK, ANSWER = PeerKind.ASKED_WHEN.byte, PeerKind.ANSWERED_WHEN.byte  # both carry when it was asked
INTERVAL_S = 4.0  # etcd's
_WHEN = struct.Struct("<Q")  # ns of the asker's monotonic clock


class RoundTrips:
    def __init__(
        self, machine: Machine, members: Iterable[int], send: Callable[[int, bytes, bytes], bool]
    ) -> None:
        """``send(member, kind, data)``: False if the peer is not there."""
        self.took = {member: Histogram(ROUND_TRIP_S) for member in members}
        self._machine = machine
        self._send = send
        self._timer: asyncio.TimerHandle | None = None

    def follow(self, member: int) -> None:
        self.took.setdefault(member, Histogram(ROUND_TRIP_S))

    def start(self) -> None:
        """Ask from now on. Peers are answered even without it."""
        self._timer = self._machine.loop.call_later(INTERVAL_S, self.start)
        for member in self.took:
            self._send(member, ASK, _WHEN.pack(self._now_ns()))

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def take(self, member_id: int, frame: bytes) -> bool:
        """A peer's frame; False if it is of another kind."""
        kind = frame[:1]
        if kind == ASK and len(frame) == 1 + _WHEN.size:
            self._send(member_id, ANSWER, frame[1:])
        elif kind == ANSWER and len(frame) == 1 + _WHEN.size:
            took_ns = self._now_ns() - _WHEN.unpack_from(frame, 1)[0]
            if took_ns >= 0:
                self.took[member_id].observe(took_ns / 1e9)
        else:
            return kind in (ASK, ANSWER)
        return True

    def _now_ns(self) -> int:
        return int(self._machine.monotonic() * 1e9)

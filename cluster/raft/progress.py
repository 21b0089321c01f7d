"""What a leader knows of one peer (flow control).

States, as in etcd's raft::

    PROBE      where the logs agree is not known: one append at a time, the next after an answer
    REPLICATE  they agree up to ``match``: appends leave without waiting, up to a limit under way
    SNAPSHOT   what the peer needs is compacted: nothing is sent until it has a state snapshot

    PROBE --ack--> REPLICATE --reject, unreachable--> PROBE --compacted--> SNAPSHOT --ack, sent--> PROBE

``match < next``; ``match`` never goes back; entries from ``next`` on are to be sent.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum


class ProgressState(IntEnum):
    PROBE = 0
    REPLICATE = 1
    SNAPSHOT = 2


PROBE, REPLICATE, SNAPSHOT = ProgressState.PROBE, ProgressState.REPLICATE, ProgressState.SNAPSHOT


class Progress:
    """One peer. The leader's loop reads and writes the fields directly (hot path)."""

    __slots__ = (
        "acked_round", "check_due", "checked_ms", "heard_ms", "inflight", "inflight_bytes", "match", "next",
        "patient", "sent_commit", "sent_ms", "state", "waiting")

    def __init__(self, next_index: int, now_ms: int) -> None:
        self.match = 0
        self.next = next_index
        self.state: ProgressState = PROBE
        self.waiting = False  # PROBE: an append is under way
        self.inflight: deque[tuple[int, int]] = deque()  # (last index, bytes) of each append under way
        self.inflight_bytes = 0
        self.heard_ms = now_ms  # any message of this term
        self.sent_ms = now_ms - (1 << 40)  # anything that it answers
        self.acked_round = 0  # the latest read round it confirmed
        self.sent_commit = 0  # the highest commit index it was told
        self.patient = False  # it can wait for news of commits
        self.check_due = False  # send an append, even an empty one, to find out whether one was lost
        self.checked_ms = now_ms  # last check, progress, or time with nothing under way

    def probe(self, next_index: int) -> None:
        self._enter(PROBE)
        self.next = max(next_index, self.match + 1)

    def replicate(self) -> None:
        self._enter(REPLICATE)
        self.next = self.match + 1

    def await_snapshot(self) -> None:
        self._enter(SNAPSHOT)

    def _enter(self, state: ProgressState) -> None:
        self.state = state
        self.waiting = False
        self.inflight.clear()
        self.inflight_bytes = 0

    def acknowledged(self, index: int) -> bool:
        """The peer's synced log agrees up to ``index``; returns whether that is news."""
        inflight = self.inflight
        while inflight and inflight[0][0] <= index:
            self.inflight_bytes -= inflight.popleft()[1]
        self.waiting = False
        if index <= self.match:
            return False
        self.match = index
        if index >= self.next:
            self.next = index + 1
        return True

    def rejected(self, index: int, try_index: int) -> bool:
        """It refused an append after ``index``; go on at ``try_index``. False if that is old news."""
        if self.state == REPLICATE:
            if index <= self.match:
                return False
            self.probe(min(try_index + 1, index))
            return True
        if self.state != PROBE or self.next - 1 != index:
            return False
        self.next = max(min(index, try_index + 1), self.match + 1)
        self.waiting = False
        return True

"""When the next entry of a log leaves: group commit.

An entry costs 1.4 ms of CPU at its leader alone, a change in it some 30 us (decision 19). So while an entry
of a leader is under way, requests gather for the next one, unless they fill an entry. Else nothing waits, but
for what is known to be coming to a busy store of several shards (decision 33).

Under load the sequencer's next record waits for the shards that are about to report (decision 24).
While CPUs are to spare, a record with enough changes waits for none: it costs as much as some 100 of them.
"""

from __future__ import annotations

from collections.abc import Mapping

FULL_REQUESTS = 512
FULL_BYTES = 256 << 10
# an entry is closed above this size, so that no record holds up the others for long (D9)
MAX_ENTRY_BYTES = 4 << 20
BUSY_CHANGES = 4
ENOUGH = 128  # changes for a record that waits for no report while CPUs are not scarce
_LONGEST_S = 0.1
_SMOOTHING = 0.2
_BORNE, _MOST_SKIPPED = 3, 64  # waits without a result


class Pace:
    """The rule; the caller says what *under way* means: not applied yet, or not in order yet."""

    def __init__(self, full_requests: int = FULL_REQUESTS, full_bytes: int = FULL_BYTES) -> None:
        self.full_requests = full_requests
        self.full_bytes = full_bytes
        # so many requests gather although nothing is under way: clients just answered are about to ask again
        self.awaited = 0
        self.held = False  # what is queued gathers although nothing is under way: others are about to join it

    def due(self, under_way: int, queued: int, queued_bytes: int) -> bool:
        if under_way == 0 and not self.held and queued >= self.awaited:
            return True
        return queued >= self.full_requests or queued_bytes >= self.full_bytes


class Doubt:
    """After ever more vain waits in a row, waiting is given up for 1, 3, 7, ... 63 rounds (decision 33)."""

    def __init__(self) -> None:
        self._skip = 0  # so many rounds more do not wait
        self._vain = 0  # waits without a result, one after the other

    def skips(self) -> bool:
        """A round begins: whether it does not wait."""
        if self._skip:
            self._skip -= 1
            return True
        return False

    def in_vain(self) -> None:
        self._vain += 1
        self._skip = min(1 << max(0, self._vain - _BORNE), _MOST_SKIPPED) - 1

    def paid(self) -> None:
        self._vain = 0


class Company:
    """Which shards the sequencer's next record waits for: those with at least ``busy`` changes in their last
    cut. Their next entry is reported one quorum round after that cut is applied. The wait is at most twice
    what that usually takes. Times are the caller's, in seconds."""

    def __init__(self, busy: int = BUSY_CHANGES) -> None:
        self.busy = busy
        self._cut_at: dict[int, float] = {}  # shards without a report since a busy cut: its time
        self._turn_s = 0.0  # from a busy cut to the next report, smoothed

    def reported(self, shard: int, now: float) -> None:
        cut_at = self._cut_at.pop(shard, None)
        if cut_at is not None and now - cut_at < _LONGEST_S:  # else nothing was written there meanwhile
            self._turn_s += (now - cut_at - self._turn_s) * _SMOOTHING

    def patience_s(self, now: float) -> float:
        """How much longer a record waits."""
        if not self._cut_at:
            return 0.0
        return max(0.0, max(self._cut_at.values()) + min(2 * self._turn_s, _LONGEST_S) - now)

    def cut(self, grown: Mapping[int, int], now: float) -> None:
        for shard, changes in grown.items():
            if changes >= self.busy:
                self._cut_at[shard] = now
            else:
                self._cut_at.pop(shard, None)

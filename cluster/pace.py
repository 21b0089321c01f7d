"""When the next entry of a log leaves: group commit.

An entry costs the hosts a fixed sum whether it holds one change or five hundred: its frames, syncs and wake-ups took
1.4 ms of CPU at its leader alone, a change in it some 30 us (decision 19). So while an entry of a leader is
under way, what comes in gathers for the next one, unless it fills an entry by itself. Nothing waits when nothing is
under way, and nothing waits for a clock.
"""

from __future__ import annotations

FULL_REQUESTS = 256
FULL_BYTES = 256 << 10


class Pace:
    """The rule; what *under way* means is the asker's: not applied yet, or not in order yet."""

    __slots__ = ("full_bytes", "full_requests")

    def __init__(self, full_requests: int = FULL_REQUESTS, full_bytes: int = FULL_BYTES) -> None:
        self.full_requests = full_requests
        self.full_bytes = full_bytes

    def due(self, under_way: int, queued: int, queued_bytes: int) -> bool:
        """Whether what is queued may become an entry now."""
        return under_way == 0 or queued >= self.full_requests or queued_bytes >= self.full_bytes

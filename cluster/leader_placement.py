"""Which host should lead a shard: pure decisions of the shard's present leader, for its own shard only.

``together``: every shard's leader on the sequencer's host, where cuts and feeds take no network (the default,
for latency). ``spread``: shard s's leader s places after the sequencer among the hosts that are up, in the
order of their IDs (for load).

Against thrash, the same wish must have stood for ``settle_ms``; leadership moves only to a voter just heard
that lacks few entries and order records, for a leader far behind would stall its shard; and each attempt
doubles the pause before the next one, up to ``MOST_PAUSES`` times the first, until a quiet time of that
length.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

TOGETHER, SPREAD = "together", "spread"
POLICIES = (TOGETHER, SPREAD)
MAX_LAG = 256  # entries, and order records, that a target may still lack: what is on its way under load
MOST_PAUSES = 16


@dataclass(slots=True, frozen=True)
class Candidate:
    member_id: int
    heard: bool  # within an election timeout
    lag: int  # entries that it is not known to have
    # order records that it had still to apply, as it said just now; None: no feed, or no word
    order_lag: int | None = None


class BackOff:
    def __init__(self, pause_ms: int) -> None:
        self._first_ms = self._pause_ms = pause_ms
        self._next_ms = 0
        self._last_ms = 0

    def ready(self, now_ms: int) -> bool:
        if self._last_ms and now_ms - self._last_ms >= 2 * MOST_PAUSES * self._first_ms:
            self._pause_ms = self._first_ms
        return now_ms >= self._next_ms

    def tried(self, now_ms: int) -> None:
        self._last_ms = now_ms
        self._next_ms = now_ms + self._pause_ms
        self._pause_ms = min(self._pause_ms * 2, MOST_PAUSES * self._first_ms)


def wanted(policy: str, shard: int, own: int, sequencer: int, candidates: Iterable[Candidate]) -> int:
    """The member that should lead; ``own`` if that is the caller, or no better one is known."""
    if not sequencer:
        return own
    up = sorted([own, *(c.member_id for c in candidates if c.heard)])
    if sequencer not in up:
        return own
    if policy == TOGETHER:
        return sequencer
    return up[(up.index(sequencer) + shard) % len(up)]


class LeaderPlacement:
    """The wish of one node, and when it may act on it. Kept over terms, for the back-off."""

    def __init__(self, policy: str, shard: int, own: int, *, settle_ms: int) -> None:
        assert policy in POLICIES, policy
        self._policy = policy
        self._shard = shard
        self._own = own
        self._settle_ms = settle_ms
        self._pauses = BackOff(2 * settle_ms)
        self._wish = own
        self._since_ms = 0

    @property
    def wish(self) -> int:
        """The member wanted at the last decision; the own one if no other is."""
        return self._wish

    def decide(self, now_ms: int, sequencer: int, candidates: Iterable[Candidate]) -> int:
        """Called regularly while leading: the member to hand over to now, or 0."""
        others = list(candidates)
        wish = wanted(self._policy, self._shard, self._own, sequencer, others)
        if wish != self._wish:
            self._wish, self._since_ms = wish, now_ms
        if wish == self._own or now_ms - self._since_ms < self._settle_ms or not self._pauses.ready(now_ms):
            return 0
        near = (
            c for c in others
            if c.heard and c.lag <= MAX_LAG and c.order_lag is not None and c.order_lag <= MAX_LAG)
        if not any(c.member_id == wish for c in near):
            return 0
        self._pauses.tried(now_ms)
        return wish

    def resigned(self) -> None:
        self._wish = self._own

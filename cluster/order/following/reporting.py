"""When a shard's leader reports: a report is state, repeated until the feed shows it."""

from __future__ import annotations

from cluster.order.log import Cut

# heartbeats between repetitions of a report that the feed has shown: each pause is twice the one before
_PAUSES, _MOST_PAUSES = 5, 40


class Reporting:
    def __init__(self, heartbeat_s: float) -> None:
        self._least_s, self._most_s = _PAUSES * heartbeat_s, _MOST_PAUSES * heartbeat_s
        self._pause_s = self._least_s
        self._said: tuple[int, int, object] = (0, 0, None)  # term and index, and by which link
        self._said_at = 0.0

    def says(self, term: int, index: int, link: object, now: float, *, force: bool) -> bool:
        """Whether to send a report of this entry now, as it is news or wanted; it counts as sent then."""
        said = (term, index, link)
        if said == self._said and not force:
            return False
        self._pause_s = min(2 * self._pause_s, self._most_s) if said == self._said else self._least_s
        self._said, self._said_at = said, now
        return True

    def again(self, cut: Cut, now: float) -> bool:
        """Each heartbeat: whether to repeat it, as the feed does not show it, or it was long ago."""
        return not self.shown(cut) or now - self._said_at >= self._pause_s

    def shown(self, cut: Cut) -> bool:
        """Whether the feed shows what was reported last."""
        return (cut.term, cut.index) >= self._said[:2]

"""When a shard's leader reports: a report is state, repeated until the feed shows it."""

from __future__ import annotations

from cluster.order.log import Cut

_PAUSES = 5  # heartbeats between repetitions of a report that the feed has shown


class Reporting:
    def __init__(self, heartbeat_s: float) -> None:
        self._pause_s = _PAUSES * heartbeat_s
        self._said: tuple[int, int, object] = (0, 0, None)  # term and index, and by which link
        self._said_at = 0.0

    def says(self, term: int, index: int, link: object, now: float, *, force: bool) -> bool:
        """Whether to send a report of this entry now, as it is news or wanted; it counts as sent then."""
        said = (term, index, link)
        if said == self._said and not force:
            return False
        self._said, self._said_at = said, now
        return True

    def again(self, cut: Cut, now: float) -> bool:
        """Each heartbeat: whether to repeat it, as the feed does not show it, or it was long ago."""
        return (cut.term, cut.index) < self._said[:2] or now - self._said_at >= self._pause_s

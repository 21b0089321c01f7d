"""When to compact by itself: etcd's two modes. Every host samples, and the leader of shard 0 compacts: a new
leader goes by what it sampled before.

* periodic, retention a duration (a bare number: hours): the revision is sampled every tenth of
  min(retention, 1 h). After the first full period it compacts every min(retention, 1 h), to the revision of
  ``retention`` ago. A period with nothing to compact, or under CORRUPT, is not waited for again.
* revision, retention N: every five minutes it compacts to current - N.
"""

from __future__ import annotations

import re
from collections import deque

from cluster.gotext import parse_duration_ns

HOUR_MS = 3_600_000
_REVISION_INTERVAL_MS = 300_000
_WHOLE = re.compile(r"[+-]?[0-9]+")


def retention_of(mode: str, text: str) -> tuple[int, float]:
    """How many revisions, and how many milliseconds are kept, as Go reads them. ValueError for a mode or a
    retention that etcd would refuse."""
    if mode not in ("periodic", "revision"):
        raise ValueError(f"unsupported auto-compaction mode {mode!r}")
    whole = int(text) if _WHOLE.fullmatch(text) else -1
    if whole >= 1 << 63 or (whole < 0 and mode == "revision"):
        raise ValueError(f"not a retention: {text!r}")
    if mode == "revision":
        return whole, 0.0
    kept_ms = float(whole * HOUR_MS) if whole >= 0 else parse_duration_ns(text) / 1e6
    if kept_ms < 0:
        raise ValueError(f"not a retention: {text!r}")
    return 0, kept_ms


class AutoCompactor:
    def __init__(self, mode: str, retention: str) -> None:
        """ValueError for a mode or retention that etcd would refuse."""
        self._revisions, self._retention_ms = retention_of(mode, retention)
        self._period_ms = min(self._retention_ms, HOUR_MS)
        self._samples: deque[tuple[int, int]] = deque()  # (time, revision), oldest first
        self._last_ms: int | None = None

    @property
    def enabled(self) -> bool:
        return self._revisions > 0 or self._retention_ms > 0

    def due(self, revision: int, now_ms: int, *, compacted: int | None) -> int | None:
        """The revision to compact to now, or None. Ask about once a second on every host: ``revision`` is a
        sample. ``compacted``: what is compacted already; None: this host does not lead, or may not."""
        if not self.enabled:
            return None
        if self._last_ms is None:
            self._last_ms = now_ms
        if self._revisions:
            return self._by_revision(revision, now_ms, compacted)
        return self._by_time(revision, now_ms, compacted)

    def _by_revision(self, revision: int, now_ms: int, compacted: int | None) -> int | None:
        assert self._last_ms is not None
        if now_ms - self._last_ms < _REVISION_INTERVAL_MS:
            return None
        self._last_ms = now_ms
        target = revision - self._revisions
        return target if compacted is not None and target > max(compacted, 0) else None

    def _by_time(self, revision: int, now_ms: int, compacted: int | None) -> int | None:
        assert self._last_ms is not None
        samples = self._samples
        if not samples or now_ms - samples[-1][0] >= self._period_ms / 10:
            samples.append((now_ms, revision))
        while len(samples) > 1 and now_ms - samples[1][0] >= self._retention_ms:
            samples.popleft()
        oldest_ms, target = samples[0]
        if compacted is None or target <= compacted:  # an idle period counts for nothing, as in etcd
            return None
        if now_ms - self._last_ms < self._period_ms or now_ms - oldest_ms < self._retention_ms:
            return None
        self._last_ms = now_ms
        return target

"""When to compact by itself: etcd's two modes. The leader of shard 0 asks; a new leader samples afresh.

* periodic, retention a duration (a bare number: hours): the revision is sampled every tenth of
  min(retention, 1 h). After the first full period it compacts every min(retention, 1 h), to the revision of
  ``retention`` ago.
* revision, retention N: every five minutes it compacts to current - N.
"""

from __future__ import annotations

import re
from collections import deque

HOUR_MS = 3_600_000
_REVISION_INTERVAL_MS = 300_000
_UNITS_MS = {
    "h": 3_600_000.0, "m": 60_000.0, "s": 1000.0, "ms": 1.0, "us": 0.001, "µs": 0.001, "ns": 0.000001,
}


def parse_duration_ms(text: str) -> float:
    """A Go duration ("1h30m", "500ms") in milliseconds. ValueError."""
    parts = re.findall(r"([0-9]*\.?[0-9]+)(h|ms|us|µs|ns|m|s)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"not a duration: {text!r}")
    return sum(float(number) * _UNITS_MS[unit] for number, unit in parts)


class AutoCompactor:
    def __init__(self, mode: str, retention: str) -> None:
        """ValueError for a mode or retention that etcd would refuse."""
        if mode not in ("periodic", "revision"):
            raise ValueError(f"unsupported auto-compaction mode {mode!r}")
        self._revisions = 0
        self._retention_ms = 0.0
        if mode == "revision":
            self._revisions = int(retention)
        else:
            self._retention_ms = (
                float(retention) * HOUR_MS if retention.isdigit() else parse_duration_ms(retention)
            )
        self._period_ms = min(self._retention_ms, HOUR_MS)
        self._samples: deque[tuple[int, int]] = deque()  # (time, revision), oldest first
        self._last_ms: int | None = None

    @property
    def enabled(self) -> bool:
        return self._revisions > 0 or self._retention_ms > 0

    def due(self, revision: int, now_ms: int) -> int | None:
        """The revision to compact to now, or None. Ask about once a second."""
        if not self.enabled:
            return None
        if self._last_ms is None:
            self._last_ms = now_ms
        return self._by_revision(revision, now_ms) if self._revisions else self._by_time(revision, now_ms)

    def _by_revision(self, revision: int, now_ms: int) -> int | None:
        assert self._last_ms is not None
        if now_ms - self._last_ms < _REVISION_INTERVAL_MS:
            return None
        self._last_ms = now_ms
        return revision - self._revisions if revision > self._revisions else None

    def _by_time(self, revision: int, now_ms: int) -> int | None:
        assert self._last_ms is not None
        samples = self._samples
        if not samples or now_ms - samples[-1][0] >= self._period_ms / 10:
            samples.append((now_ms, revision))
        if now_ms - self._last_ms < self._period_ms or now_ms - samples[0][0] < self._retention_ms:
            return None
        self._last_ms = now_ms
        target = None
        while samples and now_ms - samples[0][0] >= self._retention_ms:
            target = samples.popleft()[1]
        return target

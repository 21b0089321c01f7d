"""Limits how often a repeated complaint is logged."""

from __future__ import annotations


class Repeats:
    """Which complaints are news: the same cause once in ``interval_s``, and few causes at all."""

    def __init__(self, interval_s: float = 60.0, causes: int = 64) -> None:
        self._interval_s = interval_s
        self._causes = causes
        self._told: dict[object, float] = {}  # cause -> when

    def news(self, cause: object, now: float) -> bool:
        """Whether to log it. ``now``: seconds of any one clock."""
        if now - self._told.get(cause, float("-inf")) < self._interval_s:
            return False
        if len(self._told) >= self._causes:
            self._told = {cause: at for cause, at in self._told.items() if now - at < self._interval_s}
            if len(self._told) >= self._causes:
                return False
        self._told[cause] = now
        return True

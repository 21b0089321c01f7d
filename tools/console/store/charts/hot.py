"""The prefixes that change most, of a sample of changes: bounded, whatever the number of keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

MOST_KEPT = 2000
_PARTS = 2


def prefix_of(key: bytes) -> bytes:
    """The directories of a key, no deeper than ``_PARTS``; a key without any is its own."""
    at = 0
    for _ in range(_PARTS):
        found = key.find(b"/", at + 1)
        if found < 0:
            break
        at = found
    return key[: at + 1] if at else key


class Hot:
    """Counts by prefix. When the table is full, those seen least make room: the large ones stay right to
    within what was dropped."""

    def __init__(self) -> None:
        self.total = 0
        self._counts: Counter[bytes] = Counter()

    def add(self, keys: Iterable[bytes]) -> None:
        """Count changes."""
        for key in keys:
            self.total += 1
            self._counts[prefix_of(key)] += 1
        if len(self._counts) > MOST_KEPT:
            self._counts = Counter(dict(self._counts.most_common(MOST_KEPT // 2)))

    def top(self, most: int = 10) -> list[tuple[bytes, int]]:
        """The prefixes that changed most, with their counts."""
        return self._counts.most_common(most)

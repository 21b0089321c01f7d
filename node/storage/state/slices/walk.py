"""What hashes and checks of a shard's whole state have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from node.storage.errors import raise_read

TIME_CHECK = 64  # rows between two looks at the clock
FIND_CHECK = 16  # the same, of rows of which each needs a search


class Walk:
    """One under way: call :meth:`step` until it returns True. ``rows`` stops where the clock is looked at."""

    def __init__(self, path: str, clock_ns: Callable[[], int], doing: str, rows: Iterator[None]) -> None:
        self.finished = False
        self._path = path
        self._clock_ns = clock_ns
        self._doing = doing
        self._rows = rows

    def step(self, budget_us: int) -> bool:
        """One slice. True: finished. Raises StorageCorruption."""
        if self.finished:
            return True
        deadline = self._clock_ns() + budget_us * 1000
        try:
            for _ in self._rows:
                if self._clock_ns() >= deadline:
                    return False
        except Exception as e:
            raise_read(e, self._path, self._doing)
        self.finished = True
        return True

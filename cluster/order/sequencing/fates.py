"""What became of a sequencer's attempts: which were appended, and by which order record (I11)."""

from __future__ import annotations

from collections import deque

from cluster.order.log import Attempt

_KEPT = 100_000  # of the attempts that were appended last


class Fates:
    """Of one sequencer's term. An attempt that is neither under way nor in here was released, or is too
    old to be kept."""

    def __init__(self) -> None:
        self.appending: list[Attempt] = []  # their multis are in the record that is being made
        self.appended: dict[Attempt, int] = {}  # with the order index of the multi; as far as kept
        # the same, the oldest first: a dictionary's first key is found behind all that were deleted
        self._by_age: deque[Attempt] = deque()
        self._not_kept = (0, 0)  # of those appended before: the highest number, the last order index

    def __contains__(self, attempt: Attempt) -> bool:
        return attempt in self.appended or attempt in self.appending

    def of(self, attempt: Attempt) -> int:
        """The order index of its multi, 0: none; if it is too old to be kept, that of a later multi."""
        index = self.appended.get(attempt)
        if index is None:
            number, index = self._not_kept
            return index if attempt.number <= number else 0
        return index

    def logged(self, index: int) -> None:
        for attempt in self.appending:
            self.appended[attempt] = index
        self._by_age += self.appending
        self.appending.clear()
        while len(self.appended) > _KEPT:
            oldest = self._by_age.popleft()
            self._not_kept = max(oldest.number, self._not_kept[0]), self.appended.pop(oldest)

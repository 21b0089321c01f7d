"""Deadlines of open calls, without a timer per call."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Protocol

_TOGETHER = 100  # calls that end in a turn of the loop, some 1 ms
_GONE = 1024  # numbers of slots that are gone, kept beside as many as there are


class Expires(Protocol):
    """A call with a deadline."""

    def expired(self) -> None: ...


class Slot(set[Expires]):
    """The calls of one slot."""

    __slots__ = ("_number", "_slots")

    def __init__(self, slots: dict[int, Slot], number: int) -> None:
        super().__init__()
        self._slots = slots
        self._number = number

    def leave(self, call: Expires) -> None:
        self.discard(call)
        if not self and self._slots.get(self._number) is self:
            del self._slots[self._number]


class Deadlines:
    """Open calls by deadline, in slots of 10 ms: adding and removing are set operations.

    The owner calls ``expire`` at or after the time that ``arm`` was called with. What is done leaves nothing
    behind: clients set deadlines years away, and calls by the hundred thousand.
    """

    SLOT_S = 0.01

    __slots__ = ("_armed", "_order", "_slots", "arm")

    def __init__(self, arm: Callable[[float], None]) -> None:
        self.arm = arm  # called with a time that is earlier than any before since ``expire``
        self._slots: dict[int, Slot] = {}
        self._order: list[int] = []  # a heap of the slots' numbers; some may have gone
        self._armed = float("inf")

    def add(self, call: Expires, deadline: float) -> Slot:
        """Watch over ``call``; it leaves the returned slot when it is done."""
        number = int(deadline / self.SLOT_S) + 1
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = Slot(self._slots, number)
            if len(self._order) > 2 * len(self._slots) + _GONE:
                self._order = sorted(self._slots)
            else:
                heapq.heappush(self._order, number)
            when = number * self.SLOT_S
            if when < self._armed:
                self._armed = when
                self.arm(when)
        slot.add(call)
        return slot

    def expire(self, now: float) -> None:
        """End calls whose deadline has passed, some in each turn of the loop, and arm the next time."""
        self._armed = float("inf")
        order, left = self._order, _TOGETHER
        while left and order and order[0] * self.SLOT_S <= now:
            number = heapq.heappop(order)
            slot = self._slots.get(number)
            while left and slot:
                left -= 1
                slot.pop().expired()
            if slot:
                heapq.heappush(order, number)
            else:
                self._slots.pop(number, None)
        while order and order[0] not in self._slots:
            heapq.heappop(order)
        if order:
            when = order[0] * self.SLOT_S
            self._armed = max(when, now + self.SLOT_S) if when > now else now
            self.arm(self._armed)

    def __len__(self) -> int:
        return sum(map(len, self._slots.values()))

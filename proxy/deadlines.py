"""Deadlines of open calls, without a timer per call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Expires(Protocol):
    """What has a deadline."""

    def expired(self) -> None:
        """The deadline has passed."""


class Deadlines:
    """Open calls by deadline, in slots of 10 ms: adding and removing are set operations.

    The owner calls ``expire`` at (or after) ``due()``, and arms its timer when ``arm`` is called.
    """

    SLOT_S = 0.01

    __slots__ = ("_armed", "_slots", "arm")

    def __init__(self, arm: Callable[[float], None]) -> None:
        self.arm = arm  # called with a time that is earlier than any before since ``expire``
        self._slots: dict[int, set[Expires]] = {}
        self._armed = float("inf")

    def add(self, call: Expires, deadline: float) -> set[Expires]:
        """Watch over ``call``; discard it from the returned set when it is done."""
        number = int(deadline / self.SLOT_S) + 1
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = set()
            when = number * self.SLOT_S
            if when < self._armed:
                self._armed = when
                self.arm(when)
        slot.add(call)
        return slot

    def expire(self, now: float) -> None:
        """End every call whose deadline has passed, and arm the next time."""
        self._armed = float("inf")
        due = [number for number in self._slots if number * self.SLOT_S <= now]
        for number in due:
            for call in list(self._slots.pop(number)):
                call.expired()
        if self._slots:
            self._armed = max(min(self._slots) * self.SLOT_S, now + self.SLOT_S)
            self.arm(self._armed)

    def __len__(self) -> int:
        return sum(map(len, self._slots.values()))

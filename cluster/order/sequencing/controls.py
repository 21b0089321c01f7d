"""Control records that are applied here, and wait until every shard's leader has applied them (H11, I20)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Controls(Generic[T]):
    """Of one node 0. ``T``: what names whoever waits. Their number is bounded by who adds them (I23)."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, T]] = []  # order index of the record, who waits

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, index: int, waiter: T) -> None:
        """A record is applied here."""
        self._waiting.append((index, waiter))

    def done(self, applied_by_all: int) -> list[T]:
        """Those whose record every leader has applied. They wait no more."""
        due = [waiter for index, waiter in self._waiting if index <= applied_by_all]
        if due:
            self._waiting = [(index, waiter) for index, waiter in self._waiting if index > applied_by_all]
        return due

    def all(self) -> list[T]:
        """Everybody: nobody is told any more what the leaders have applied. They wait no more."""
        waiting, self._waiting = self._waiting, []
        return [waiter for _, waiter in waiting]

    def keep(self, awaited: Callable[[T], bool]) -> None:
        """Forget who does not wait any more."""
        self._waiting = [(index, waiter) for index, waiter in self._waiting if awaited(waiter)]

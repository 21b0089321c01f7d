"""Cohorts of a range that begin beyond what was emitted. One that comes or goes costs the same beside 100,000
others. An event costs only what begins with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush
from itertools import chain
from typing import Any, Generic, Protocol, TypeVar


class Placed(Protocol):
    """What of ``proxy.watch.cohort.Cohort`` counts here."""

    cursor: int
    shape: Any

    def absorb(self, other: Any) -> None: ...


Cohort = TypeVar("Cohort", bound=Placed)
_SPARE = 64  # cursors that may stay in the heap without a cohort, beside as many as have one


class Ahead(Generic[Cohort]):
    __slots__ = ("_at", "_heap")

    def __init__(self) -> None:
        self._at: dict[int, dict[tuple[object, int], Cohort]] = {}  # by cursor, then by shape
        self._heap: list[int] = []  # the cursors; some have no cohort any more

    def __bool__(self) -> bool:
        return bool(self._at)

    def __iter__(self) -> Iterator[Cohort]:
        return chain.from_iterable(same.values() for same in self._at.values())

    def add(self, cohort: Cohort) -> None:
        same = self._at.get(cohort.cursor)
        if same is None:
            same = self._at[cohort.cursor] = {}
            heappush(self._heap, cohort.cursor)
        if (one := same.setdefault(cohort.shape, cohort)) is not cohort:
            one.absorb(cohort)

    def remove(self, cohort: Cohort) -> None:
        same = self._at[cohort.cursor]
        del same[cohort.shape]
        if not same:
            del self._at[cohort.cursor]
            if len(self._heap) > 2 * len(self._at) + _SPARE:
                self._heap = list(self._at)
                heapify(self._heap)

    def before(self, revision: int) -> list[int]:
        """The cursors below a revision, in order. Each of them is taken next."""
        found = []
        while self._heap and self._heap[0] < revision:
            if (cursor := heappop(self._heap)) in self._at:
                found.append(cursor)
        return found

    def take(self, cursor: int) -> Iterable[Cohort]:
        return self._at.pop(cursor, {}).values()

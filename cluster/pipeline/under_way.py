"""Entries that this replica logged as a leader, until their fate is known.

An entry is done once an entry of its term is applied at its index. It is certainly lost once its place is
passed with another term, or an entry of a later term is before it; then its clients may ask again (I23).
Until then no answer is given, whichever replica leads (review (b), Lost term).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

_NO_BOUND = 1 << 62


class Entry(Protocol):
    index: int  # both set when it is logged
    term: int
    size: int  # bytes


E = TypeVar("E", bound=Entry)


class UnderWay(Generic[E]):
    """In logged order. At ``most`` entries or ``most_bytes`` the leader logs no more."""

    def __init__(self, most: int = _NO_BOUND, most_bytes: int = _NO_BOUND) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self.entries: deque[E] = deque()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def has_room(self) -> bool:
        return len(self.entries) < self._most and self.bytes < self._most_bytes

    def logged(self, index: int, term: int, entry: E) -> None:
        entry.index, entry.term = index, term
        self.entries.append(entry)
        self.bytes += entry.size

    def at(self, index: int, term: int) -> E | None:
        for entry in self.entries:
            if entry.index == index and entry.term == term:
                return entry
        return None

    def applied(
        self, index: int, term: int, term_at: Callable[[int], int] | None = None,
    ) -> list[tuple[E, bool]]:
        """All up to ``index`` is applied, and the entry there is of ``term``. Returns the entries whose fate
        that decides, and whether they are done. ``term_at``: the term of each entry up to there; without it
        entries of ``term`` are done, as its leader's log holds all that it logged before."""
        decided: list[tuple[E, bool]] = []
        entries = self.entries
        while entries and ((own := entries[0]).index <= index or own.term < term):
            entries.popleft()
            self.bytes -= own.size
            there = own.index <= index and own.term == (term if term_at is None else term_at(own.index))
            decided.append((own, there))
        # terms rise, and indexes within a term: behind one that is open only a later term's can be decided
        if entries and entries[0].term != entries[-1].term:
            passed = [own for own in entries if own.index <= index]
            for own in passed:
                decided.append((own, own.term == (term if term_at is None else term_at(own.index))))
            self.drop(passed)
        return decided

    def skipped_to(self, index: int) -> list[E]:
        """A snapshot replaced all up to there: these fates stay unknown; no client may ask again (I23)."""
        passed = [entry for entry in self.entries if entry.index <= index]
        self.drop(passed)
        return passed

    def drop(self, passed: list[E]) -> None:
        for entry in passed:
            self.entries.remove(entry)
            self.bytes -= entry.size


"""Which ranges hold a key: what every applied event is asked, with as many ranges as clients watch.

Ranges that go on to the end of the key space hold a key exactly if they begin at or before it: a sorted list answers
that. The others lie in an array sorted by start with a tree of the greatest ends above it, in which a search meets
only what it returns and the way there. Newcomers wait in a short list that is looked through, until the array is built
anew; those that leave are blanked.

10,000 prefixes: 3.5 us for a key that one of them holds (looking through a list: 185 us), 7 us with 200 newcomers;
a single prefix: 0.2 us.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import Generic, Protocol, TypeVar


class Range(Protocol):
    """What is indexed, by identity."""

    @property
    def key(self) -> bytes: ...
    @property
    def range_end(self) -> bytes: ...


R = TypeVar("R", bound=Range)


class RangeIndex(Generic[R]):
    """Ranges by the keys they hold. ``range_end``: a zero byte is the end of the key space; never empty."""

    def __init__(self) -> None:
        self._serial = 0
        self._endless: list[tuple[bytes, int, R]] = []  # sorted by start
        self._serials: dict[R, int] = {}  # of endless ones
        self._young: dict[R, None] = {}
        self._starts: list[bytes] = []
        self._items: list[R | None] = []
        self._places: dict[R, int] = {}
        self._ends: list[bytes] = [b"", b""]  # node i has children 2i and 2i+1; the second half are the ranges' own

    def __len__(self) -> int:
        return len(self._endless) + len(self._young) + len(self._places)

    def add(self, item: R) -> None:
        """One more range."""
        if item.range_end == b"\0":
            self._serial += 1
            self._serials[item] = self._serial
            insort(self._endless, (item.key, self._serial, item))
        else:
            self._young[item] = None

    def remove(self, item: R) -> None:
        """A range that was added is no more."""
        serial = self._serials.pop(item, 0)
        if serial:
            at = bisect_left(self._endless, (item.key, serial), key=_start_and_serial)
            del self._endless[at]
        elif item in self._young:
            del self._young[item]
        else:
            self._items[self._places.pop(item)] = None

    def all(self) -> list[R]:
        """Every range."""
        return [*(item for _, _, item in self._endless), *self._young, *self._places]

    def holding(self, key: bytes) -> list[R]:
        """The ranges that hold a key."""
        if self._endless:
            upto = bisect_right(self._endless, key, key=_start)
            found = [item for _, _, item in self._endless[:upto]]
        else:
            found = []
        if len(self._young) > 64 + len(self._starts) // 64 or len(self._places) < len(self._starts) // 2:
            self._build()
        for item in self._young:
            if item.key <= key < item.range_end:
                found.append(item)
        last = bisect_right(self._starts, key)
        if last:
            self._search(key, last, found)
        return found

    def _search(self, key: bytes, last: int, found: list[R]) -> None:
        """Those of the first ``last`` that end after the key."""
        ends, items = self._ends, self._items
        half = len(ends) // 2
        nodes = [1]
        while nodes:
            node = nodes.pop()
            if ends[node] <= key:
                continue
            if node < half:
                # the leftmost leaf below a node is its place shifted down to the last level
                right = 2 * node + 1
                if (right << half.bit_length() - right.bit_length()) - half < last:
                    nodes.append(right)
                nodes.append(2 * node)
            else:
                found_item = items[node - half]
                if found_item is not None:
                    found.append(found_item)

    def _build(self) -> None:
        ranges = sorted((*self._places, *self._young), key=_key_of)
        self._young = {}
        self._starts = [item.key for item in ranges]
        self._items = list(ranges)
        self._places = {item: place for place, item in enumerate(ranges)}
        half = 1
        while half < len(ranges):
            half *= 2
        ends = [b""] * half + [item.range_end for item in ranges] + [b""] * (half - len(ranges))
        for node in range(half - 1, 0, -1):
            ends[node] = max(ends[2 * node], ends[2 * node + 1])
        self._ends = ends


def _start(entry: tuple[bytes, int, R]) -> bytes:
    return entry[0]


def _start_and_serial(entry: tuple[bytes, int, R]) -> tuple[bytes, int]:
    return entry[0], entry[1]


def _key_of(item: Range) -> bytes:
    return item.key

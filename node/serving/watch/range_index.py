"""Which ranges hold a key: asked for every applied event, of all ranges that clients watch.

Ranges that go on to the end of the key space hold a key exactly if they begin at or before it: a sorted list
answers that. The others lie in a B+ tree, sorted by start, in which every entry knows the greatest end below
it: a search meets only what it returns and the way there. A range that comes or goes changes one path.

10,000 prefixes: 4 us for a key that one of them holds (looking through a list: 185 us), 6 us to add one; a
single prefix: 0.4 us.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import Any, Generic, Protocol, TypeVar

_MOST = 32  # entries of a node of the tree


class Range(Protocol):
    """What is indexed, by identity."""

    @property
    def key(self) -> bytes: ...
    @property
    def range_end(self) -> bytes: ...


R = TypeVar("R", bound=Range)
Start = tuple[bytes, int]  # of a range: its key, and a serial number, so that no two are alike


class _Node:
    """Entry i: a child (or a range, in a leaf), no later start than any below it, the greatest end below
    it."""

    __slots__ = ("below", "ends", "leaf", "starts")

    def __init__(self, leaf: bool, starts: list[Start], ends: list[bytes], below: list[Any]) -> None:
        self.leaf = leaf
        self.starts = starts
        self.ends = ends
        self.below = below

    def split(self) -> _Node:
        half = len(self.starts) // 2
        upper = _Node(self.leaf, self.starts[half:], self.ends[half:], self.below[half:])
        del self.starts[half:], self.ends[half:], self.below[half:]
        return upper


class RangeIndex(Generic[R]):
    """Ranges by the keys they hold. ``range_end``: a zero byte is the end of the key space; never empty."""

    def __init__(self) -> None:
        self._serial = 0
        self._endless: list[tuple[bytes, int, R]] = []  # sorted by start
        self._serials: dict[R, int] = {}
        self._root = _Node(True, [], [], [])

    def __len__(self) -> int:
        return len(self._serials)

    def add(self, item: R) -> None:
        self._serial += 1
        self._serials[item] = self._serial
        if item.range_end == b"\0":
            insort(self._endless, (item.key, self._serial, item))
            return
        start = item.key, self._serial
        root = self._root
        upper = self._insert(root, start, item.range_end, item)
        if upper is not None:
            self._root = _Node(
                False, [root.starts[0], upper.starts[0]], [max(root.ends), max(upper.ends)], [root, upper])

    def _insert(self, node: _Node, start: Start, end: bytes, item: R) -> _Node | None:
        """Put a range below a node; returns what the node had to split off."""
        at = bisect_right(node.starts, start)
        if node.leaf:
            node.starts.insert(at, start)
            node.ends.insert(at, end)
            node.below.insert(at, item)
        else:
            at = max(at - 1, 0)
            child = node.below[at]
            upper = self._insert(child, start, end, item)
            if start < node.starts[at]:
                node.starts[at] = start
            if upper is not None:
                node.ends[at] = max(child.ends)
                node.starts.insert(at + 1, upper.starts[0])
                node.ends.insert(at + 1, max(upper.ends))
                node.below.insert(at + 1, upper)
            elif end > node.ends[at]:
                node.ends[at] = end
        return node.split() if len(node.starts) > _MOST else None

    def remove(self, item: R) -> None:
        start = item.key, self._serials.pop(item)
        if item.range_end == b"\0":
            del self._endless[bisect_left(self._endless, start, key=_start_and_serial)]
            return
        root = self._root
        self._delete(root, start)
        while not root.leaf and len(root.below) == 1:
            self._root = root = root.below[0]
        if not root.below:
            self._root = _Node(True, [], [], [])

    def _delete(self, node: _Node, start: Start) -> None:
        at = bisect_right(node.starts, start) - 1
        if not node.leaf:
            child = node.below[at]
            self._delete(child, start)
            if child.below:
                node.ends[at] = max(child.ends)
                return
        else:
            assert node.starts[at] == start, "a range that is removed is not where it was added"
        del node.starts[at], node.ends[at], node.below[at]

    def holding(self, key: bytes) -> list[R]:
        found: list[R] = []
        if self._endless:
            upto = bisect_right(self._endless, key, key=_start)
            found = [item for _, _, item in self._endless[:upto]]
        root = self._root
        if root.leaf:  # a handful
            found += [
                item
                for start, end, item in zip(root.starts, root.ends, root.below, strict=True)
                if start[0] <= key < end
            ]
            return found
        after = key, self._serial + 1
        nodes = [root]
        while nodes:
            node = nodes.pop()
            upto = bisect_right(node.starts, after)
            hits = [below for below, end in zip(node.below[:upto], node.ends, strict=False) if end > key]
            if node.leaf:
                found += hits
            else:
                nodes += hits
        return found


def _start(entry: tuple[bytes, int, R]) -> bytes:
    return entry[0]


def _start_and_serial(entry: tuple[bytes, int, R]) -> tuple[bytes, int]:
    return entry[0], entry[1]

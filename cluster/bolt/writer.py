"""A bbolt file written once, in order: it holds one page a level of the tree in memory. Cost: 1.5 us a row.

The two metas come first and name the last pages. A caller that cannot seek back lays the file out first
(:class:`Measured`), and gives :class:`Writer` the :class:`Layout`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from typing import Any, Generic, NamedTuple, TypeVar

from cluster.bolt.pages import (
    BRANCH,
    BUCKET,
    BUCKET_FLAG,
    ELEMENT_SIZE,
    FREE_LIST,
    HEADER,
    LEAF,
    PAGE_SIZE,
    branch_body,
    leaf_body,
    meta_page,
)

_INLINE_BYTES = PAGE_SIZE // 4  # a bucket up to this stands within its parent's page, as bbolt has it
_ROOM = PAGE_SIZE - HEADER.size
_FREE_LIST_PAGE = 2


class NotAsLaidOut(Exception):
    """The rows are others than when they were measured."""


class Layout(NamedTuple):
    """What the metas name."""

    root: int  # its page
    end: int  # number of pages

    @property
    def size_bytes(self) -> int:
        return self.end * PAGE_SIZE

    def metas(self) -> bytes:
        """The first two pages."""
        return b"".join(meta_page(n, self.root, _FREE_LIST_PAGE, self.end, 2 - n) for n in (0, 1))


Value = TypeVar("Value", bound=Sized)


class _Pages(Generic[Value]):
    """The pages of a database, one after the other. A subclass says what becomes of them."""

    def __init__(self) -> None:
        self._next = _FREE_LIST_PAGE
        self._buckets: dict[bytes, bytes] = {}
        self.page(FREE_LIST, 0, 0, bytes)  # no page is free

    def bucket(self, name: bytes, rows: Iterable[tuple[bytes, Value]]) -> None:
        """Write a bucket. Keys ascend; each bucket is written once."""
        if name in self._buckets:
            raise ValueError(f"bucket {name!r} is written twice")
        tree: _Tree[Value] = _Tree(self)
        last: bytes | None = None
        for key, value in rows:
            if last is not None and key <= last:
                raise ValueError(f"key {key!r} of bucket {name!r} does not ascend")
            last = key
            tree.add(key, value)
        self._buckets[name] = tree.finish_bucket()

    def finish(self) -> Layout:
        """Write the root."""
        rows = sorted(self._buckets.items())
        root: _Tree[bytes] = _Tree(self, self._root_leaf)
        for name, value in rows:
            root.add(name, value)
        return Layout(root.finish(), self._next)

    def page(self, flags: int, count: int, size: int, body: Callable[[], bytes]) -> int:
        """Take a page, with as many behind it as its body of ``size`` needs; returns its number. For this
        module."""
        number = self._next
        span = -(-(HEADER.size + size) // PAGE_SIZE)
        self._next += span
        self.put(number, flags, count, span, body)
        return number

    def put(self, number: int, flags: int, count: int, span: int, body: Callable[[], bytes]) -> None:
        raise NotImplementedError

    def leaf(self, rows: list[tuple[bytes, Value]], size: int) -> bytes:
        """The body of a leaf page."""
        raise NotImplementedError

    @staticmethod
    def _root_leaf(rows: list[tuple[bytes, bytes]], size: int) -> bytes:
        return leaf_body(rows, BUCKET_FLAG)


class Writer(_Pages[bytes]):
    """A database being written. Every page goes to ``write`` at once, page after page. A file that
    is not as it was laid out comes short: NotAsLaidOut."""

    def __init__(self, write: Callable[[bytes], object], layout: Layout) -> None:
        self._write = write
        self._layout = layout
        write(layout.metas())
        super().__init__()

    def finish(self) -> Layout:
        found = super().finish()
        if found != self._layout:
            raise NotAsLaidOut(f"{found}, not {self._layout}")
        return found

    def put(self, number: int, flags: int, count: int, span: int, body: Callable[[], bytes]) -> None:
        end = number + span
        if end > self._layout.end or (end == self._layout.end) is not (number == self._layout.root):
            raise NotAsLaidOut(f"pages {number} to {end - 1} of {self._layout.end}")
        page = HEADER.pack(number, flags, count, span - 1) + body()
        self._write(page.ljust(span * PAGE_SIZE, b"\0"))

    def leaf(self, rows: list[tuple[bytes, bytes]], size: int) -> bytes:
        return leaf_body(rows, 0)


class Measured(_Pages[Sized]):
    """A database that is only laid out: of a value, its length counts."""

    def put(self, number: int, flags: int, count: int, span: int, body: Callable[[], bytes]) -> None:
        pass

    def leaf(self, rows: list[tuple[bytes, Sized]], size: int) -> bytes:
        return bytes(size)


class _Tree(Generic[Value]):
    """The pages of one bucket, from the leaves up."""

    def __init__(
        self, file: _Pages[Any], body: Callable[[list[tuple[bytes, Value]], int], bytes] | None = None
    ) -> None:
        """``body``: of its leaves, if not the file's."""
        self._file = file
        self._body = body or file.leaf
        self._rows: list[tuple[bytes, Value]] = []
        self._size = 0
        self._levels: list[_Level] = []

    def add(self, key: bytes, value: Value) -> None:
        size = ELEMENT_SIZE + len(key) + len(value)
        if self._size + size > _ROOM and self._rows:
            self._leaf()
        self._rows.append((key, value))
        self._size += size

    def finish_bucket(self) -> bytes:
        """Write what is left; returns the bucket as its parent holds it."""
        if not self._levels and HEADER.size + self._size <= _INLINE_BYTES:
            page = HEADER.pack(0, LEAF, len(self._rows), 0) + self._body(self._rows, self._size)
            return BUCKET.pack(0, 0) + page
        return BUCKET.pack(self.finish(), 0)

    def finish(self) -> int:
        """Write what is left; returns the root's page."""
        if not self._levels:
            return self._page()
        if self._rows:
            self._leaf()
        at = 0
        while at < len(self._levels) - 1 or len(self._levels[at].children) > 1:
            self._branch(at)
            at += 1
        return self._levels[at].children[0][1]

    def _page(self) -> int:
        return self._file.page(
            LEAF, len(self._rows), self._size, lambda: self._body(self._rows, self._size))

    def _leaf(self) -> None:
        page = self._page()
        self._child(0, self._rows[0][0], page)
        self._rows = []
        self._size = 0

    def _child(self, at: int, key: bytes, page: int) -> None:
        if at == len(self._levels):
            self._levels.append(_Level())
        level = self._levels[at]
        size = ELEMENT_SIZE + len(key)
        if level.size + size > _ROOM and len(level.children) > 1:
            self._branch(at)
        level.children.append((key, page))
        level.size += size

    def _branch(self, at: int) -> None:
        level = self._levels[at]
        children, size, level.children, level.size = level.children, level.size, [], 0
        page = self._file.page(BRANCH, len(children), size, lambda: branch_body(children))
        self._child(at + 1, children[0][0], page)


class _Level:
    """Pages that have no parent yet."""

    __slots__ = ("children", "size")

    def __init__(self) -> None:
        self.children: list[tuple[bytes, int]] = []
        self.size = 0


Buckets = Callable[[], Iterable[tuple[bytes, Iterable[tuple[bytes, bytes]]]]]


def write(buckets: Buckets, take: Callable[[bytes], object]) -> Layout:
    """A whole database, as ``take`` gets it piece by piece. ``buckets`` is called twice, and gives the same
    names and rows."""
    measured = Measured()
    for name, rows in buckets():
        measured.bucket(name, rows)
    writer = Writer(take, measured.finish())
    for name, rows in buckets():
        writer.bucket(name, rows)
    return writer.finish()

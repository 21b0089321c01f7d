"""A bbolt file written once, in order: it holds one page a level of the tree in memory. Cost: 1.5 us a row.

The two metas stand first and name what comes last, so :meth:`Writer.finish` returns them, to be put over the
zeros that :class:`Writer` began with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

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


class Writer:
    """A database being written. Every page goes to ``write`` at once, page after page."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._next = _FREE_LIST_PAGE
        self._buckets: dict[bytes, bytes] = {}
        write(bytes(2 * PAGE_SIZE))
        self.page(FREE_LIST, 0, b"")  # no page is free

    @property
    def size_bytes(self) -> int:
        """Of the file so far."""
        return self._next * PAGE_SIZE

    def bucket(self, name: bytes, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Write a bucket. Keys ascend; each bucket is written once."""
        if name in self._buckets:
            raise ValueError(f"bucket {name!r} is written twice")
        tree = _Tree(self, 0)
        last: bytes | None = None
        for key, value in rows:
            if last is not None and key <= last:
                raise ValueError(f"key {key!r} of bucket {name!r} does not ascend")
            last = key
            tree.add(key, value)
        self._buckets[name] = tree.finish_bucket()

    def finish(self) -> bytes:
        """Write the root; returns the first bytes of the file."""
        root = _Tree(self, BUCKET_FLAG)
        for name in sorted(self._buckets):
            root.add(name, self._buckets[name])
        page = root.finish()
        return b"".join(meta_page(n, page, _FREE_LIST_PAGE, self._next, 2 - n) for n in (0, 1))

    def page(self, flags: int, count: int, body: bytes) -> int:
        """Write a page, with as many behind it as its body needs; returns its number. For this module."""
        number = self._next
        span = -(-(HEADER.size + len(body)) // PAGE_SIZE)
        self._next += span
        self._write((HEADER.pack(number, flags, count, span - 1) + body).ljust(span * PAGE_SIZE, b"\0"))
        return number


class _Tree:
    """The pages of one bucket, from the leaves up."""

    def __init__(self, file: Writer, flags: int) -> None:
        self._file = file
        self._flags = flags
        self._rows: list[tuple[bytes, bytes]] = []
        self._size = 0
        self._levels: list[_Level] = []

    def add(self, key: bytes, value: bytes) -> None:
        size = ELEMENT_SIZE + len(key) + len(value)
        if self._size + size > _ROOM and self._rows:
            self._leaf()
        self._rows.append((key, value))
        self._size += size

    def finish_bucket(self) -> bytes:
        """Write what is left; returns the bucket as its parent holds it."""
        if not self._levels and HEADER.size + self._size <= _INLINE_BYTES:
            page = HEADER.pack(0, LEAF, len(self._rows), 0) + leaf_body(self._rows, self._flags)
            return BUCKET.pack(0, 0) + page
        return BUCKET.pack(self.finish(), 0)

    def finish(self) -> int:
        """Write what is left; returns the root's page."""
        if not self._levels:
            return self._file.page(LEAF, len(self._rows), leaf_body(self._rows, self._flags))
        if self._rows:
            self._leaf()
        at = 0
        while at < len(self._levels) - 1 or len(self._levels[at].children) > 1:
            self._branch(at)
            at += 1
        return self._levels[at].children[0][1]

    def _leaf(self) -> None:
        page = self._file.page(LEAF, len(self._rows), leaf_body(self._rows, self._flags))
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
        children, level.children, level.size = level.children, [], 0
        page = self._file.page(BRANCH, len(children), branch_body(children))
        self._child(at + 1, children[0][0], page)


class _Level:
    """Pages that have no parent yet."""

    __slots__ = ("children", "size")

    def __init__(self) -> None:
        self.children: list[tuple[bytes, int]] = []
        self.size = 0

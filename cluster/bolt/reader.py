"""Reads a bbolt file: rows of its buckets in order, and whether every page is where it belongs.

:meth:`Database.check` does what bbolt's ``tx.Check`` does: it finds pages that are neither used nor free,
pages that are used twice, keys out of order. Cost: 0.8 us a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from mmap import mmap

from cluster.bolt.pages import (
    BRANCH,
    BRANCH_ELEMENT,
    BUCKET,
    BUCKET_FLAG,
    CHECKSUM,
    ELEMENT_SIZE,
    FREE_LIST,
    HEADER,
    LEAF,
    LEAF_ELEMENT,
    MAGIC,
    META,
    NO_FREE_LIST,
    VERSION,
    InvalidDatabase,
    fnv1a,
)

_PAGE_SIZES = tuple(1024 << n for n in range(7))
_DEEPEST = 64  # levels of a tree; a loop among pages would have no end
_COUNT_BEHIND = 0xFFFF  # a free list's count that says: the count stands behind the header


class Database:
    """A whole file. InvalidDatabase: it cannot be read."""

    def __init__(self, data: bytes | mmap, size: int | None = None) -> None:
        """``size``: of the database, where more stands behind it (a backup's hash)."""
        self._data = data
        self._size = len(data) if size is None else size
        self.page_size, self._root, self._free_list, self.end, self.transaction = self._meta()
        if self.end * self.page_size > self._size:
            raise InvalidDatabase("file size too small")

    @property
    def size_bytes(self) -> int:
        """Of the database: all pages up to the last that may be in use."""
        return self.end * self.page_size

    def _meta(self) -> tuple[int, int, int, int, int]:
        first, why = self._meta_at(0)
        found = [] if first is None else [first]
        for size in (first[0],) if first is not None else _PAGE_SIZES:
            second, _ = self._meta_at(size)
            if second is not None and second[0] == size:
                found.append(second)
                break
        if not found:
            raise InvalidDatabase(why)
        return max(found, key=lambda meta: meta[4])

    def _meta_at(self, at: int) -> tuple[tuple[int, int, int, int, int] | None, str]:
        start = at + HEADER.size
        if self._size < start + META.size + CHECKSUM.size:
            return None, "invalid database"
        meta = bytes(self._data[start : start + META.size])
        magic, version, page_size, _, root, _, free_list, end, transaction = META.unpack(meta)
        if magic != MAGIC or page_size not in _PAGE_SIZES:
            return None, "invalid database"
        if version != VERSION:
            return None, "version mismatch"
        if CHECKSUM.unpack_from(self._data, start + META.size)[0] != fnv1a(meta):
            return None, "checksum error"
        return (page_size, root, free_list, end, transaction), ""

    def buckets(self) -> list[bytes]:
        """Their names, in order."""
        return [key for key, _, flags in self._tree(self._root) if flags & BUCKET_FLAG]

    def rows(self, name: bytes) -> Iterator[tuple[bytes, bytes]]:
        """A bucket's rows, in order; none if it does not exist. Buckets in it are passed over."""
        for key, value, flags in self._tree(self._root):
            if key == name and flags & BUCKET_FLAG:
                for row_key, row_value, row_flags in self._bucket(value):
                    if not row_flags & BUCKET_FLAG:
                        yield row_key, row_value
                return

    def get(self, bucket: bytes, key: bytes) -> bytes | None:
        """One row of a small bucket."""
        return next((value for found, value in self.rows(bucket) if found == key), None)

    def _bucket(self, value: bytes) -> Iterator[tuple[bytes, bytes, int]]:
        if len(value) < BUCKET.size:
            raise InvalidDatabase("invalid database")
        root = BUCKET.unpack_from(value)[0]
        if root:
            yield from self._tree(root)
        else:
            yield from _leaf_rows(value, BUCKET.size, len(value))

    def _tree(self, page: int) -> Iterator[tuple[bytes, bytes, int]]:
        above: list[Iterator[int]] = [iter((page,))]
        while above:
            child = next(above[-1], None)
            if child is None:
                above.pop()
                continue
            at, flags, _, end = self._page(child)
            if flags & LEAF:
                yield from _leaf_rows(self._data, at, end)
            elif len(above) > _DEEPEST:
                raise InvalidDatabase(f"page {child}: too deep")
            else:
                above.append(iter([page for _, page in self._children(child)]))

    def _page(self, number: int) -> tuple[int, int, int, int]:
        """Where a page begins, its flags, how many more it spans, where it ends."""
        if not 2 <= number < self.end:
            raise InvalidDatabase(f"page {number}: out of bounds: {self.end}")
        at = number * self.page_size
        found, flags, _, overflow = HEADER.unpack_from(self._data, at)
        if found != number:
            raise InvalidDatabase(f"Page expected to be: {number}, but self identifies as {found}")
        if flags not in (BRANCH, LEAF, FREE_LIST):
            raise InvalidDatabase(f"page {number}: invalid type: unknown<{flags:02x}>")
        end = at + (overflow + 1) * self.page_size
        if end > self.end * self.page_size:
            raise InvalidDatabase(f"page {number}: out of bounds: {self.end}")
        return at, flags, overflow, end

    def _children(self, number: int) -> list[tuple[bytes, int]]:
        at, flags, _, end = self._page(number)
        if flags != BRANCH:
            raise InvalidDatabase(f"page {number}: invalid type: unknown<{flags:02x}>")
        children = []
        count = HEADER.unpack_from(self._data, at)[2]
        element = at + HEADER.size
        if element + count * ELEMENT_SIZE > end:
            raise InvalidDatabase(f"page {number}: out of bounds: {self.end}")
        for _ in range(count):
            pos, key_size, page = BRANCH_ELEMENT.unpack_from(self._data, element)
            key_at = element + pos
            if key_at + key_size > end:
                raise InvalidDatabase(f"page {number}: out of bounds: {self.end}")
            children.append((bytes(self._data[key_at : key_at + key_size]), page))
            element += ELEMENT_SIZE
        return children

    # -- the whole

    def check(self) -> list[str]:
        """What is wrong with it, in the words of bbolt's ``tx.Check``; empty: it is sound."""
        errors: list[str] = []
        free: set[int] = set()
        reached: set[int] = {0, 1}
        if self._free_list != NO_FREE_LIST:
            try:
                free = set(self._free_pages())
            except InvalidDatabase as e:
                return [str(e)]
            _, _, overflow, _ = self._page(self._free_list)
            reached.update(range(self._free_list, self._free_list + overflow + 1))
        self._check_tree(self._root, reached, free, errors)
        if self._free_list != NO_FREE_LIST:
            used = reached | free
            errors += [f"page {n}: unreachable unfreed" for n in range(self.end) if n not in used]
        return errors

    def _free_pages(self) -> list[int]:
        at, flags, _, end = self._page(self._free_list)
        if flags != FREE_LIST:
            raise InvalidDatabase(f"page {self._free_list}: invalid type: unknown<{flags:02x}>")
        count = HEADER.unpack_from(self._data, at)[2]
        at += HEADER.size
        if count == _COUNT_BEHIND:
            (count,) = CHECKSUM.unpack_from(self._data, at)
            at += CHECKSUM.size
        if at + 8 * count > end:
            raise InvalidDatabase(f"page {self._free_list}: out of bounds: {self.end}")
        return [n for (n,) in CHECKSUM.iter_unpack(self._data[at : at + 8 * count])]

    def _check_tree(self, root: int, reached: set[int], free: set[int], errors: list[str]) -> None:
        # page, level, first key it may hold, key it must not reach
        waiting: list[tuple[int, int, bytes, bytes | None]] = [(root, 0, b"", None)]
        while waiting:
            number, level, least, most = waiting.pop()
            if number in reached:  # not followed: there may be a loop
                errors.append(f"page {number}: multiple references")
                continue
            try:
                _, _, overflow, _ = self._page(number)
                keys, children, buckets = self._held(number)
                if children and level > _DEEPEST:
                    raise InvalidDatabase(f"page {number}: too deep")
            except InvalidDatabase as e:
                errors.append(str(e))
                continue
            bounds: list[bytes | None] = [*keys[1:], most]
            waiting += [
                (page, level + 1, key, bound)
                for page, key, bound in zip(children, keys, bounds, strict=False)
            ]
            pages = range(number, number + overflow + 1)
            errors += [f"page {n}: multiple references" for n in pages[1:] if n in reached]
            errors += [f"page {n}: reachable freed" for n in pages if n in free]
            reached.update(pages)
            ordered = all(a < b for a, b in pairwise(keys))
            if not ordered or (keys and (keys[0] < least or (most is not None and keys[-1] >= most))):
                errors.append(f"page {number}: keys are out of order")
            for value in buckets:
                if len(value) < BUCKET.size:
                    errors.append(f"page {number}: a bucket is cut short")
                elif inner := BUCKET.unpack_from(value)[0]:
                    waiting.append((inner, 0, b"", None))  # buckets may stand in buckets, thousands deep
                else:
                    errors += _wrong_in_line(number, value)

    def _held(self, number: int) -> tuple[list[bytes], list[int], list[bytes]]:
        """A page's keys, the pages below it, the buckets in it."""
        at, flags, _, end = self._page(number)
        if flags == BRANCH:
            children = self._children(number)
            return [key for key, _ in children], [page for _, page in children], []
        rows = list(_leaf_rows(self._data, at, end))
        return [key for key, _, _ in rows], [], [value for _, value, flags in rows if flags & BUCKET_FLAG]


def _wrong_in_line(number: int, value: bytes) -> list[str]:
    """What is wrong with a bucket that stands within a page: at most one thing."""
    try:
        keys = [key for key, _, _ in _leaf_rows(value, BUCKET.size, len(value))]
    except InvalidDatabase as e:
        return [f"page {number}: in a bucket: {e}"]
    ordered = all(a < b for a, b in pairwise(keys))
    return [] if ordered else [f"page {number}: keys of a bucket are out of order"]


def _leaf_rows(data: bytes | mmap, at: int, end: int) -> Iterator[tuple[bytes, bytes, int]]:
    if end - at < HEADER.size:
        raise InvalidDatabase("invalid database")
    number, flags, count, _ = HEADER.unpack_from(data, at)
    element = at + HEADER.size
    if flags != LEAF or element + count * ELEMENT_SIZE > end:
        raise InvalidDatabase(f"page {number}: invalid type: unknown<{flags:02x}>")
    unpack = LEAF_ELEMENT.unpack_from
    for _ in range(count):
        row_flags, pos, key_size, value_size = unpack(data, element)
        key_at = element + pos
        value_at = key_at + key_size
        if value_at + value_size > end:
            raise InvalidDatabase(f"page {number}: out of bounds")
        yield data[key_at:value_at], data[value_at : value_at + value_size], row_flags
        element += ELEMENT_SIZE

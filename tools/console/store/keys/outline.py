"""The part of a tree that is open on a user's screen, kept in step with the store.

It is bounded: of each directory a window of at most ``WINDOW`` entries is held, and at most ``OPEN``
directories are open. So a page costs the same whatever the store holds.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from muster_client import Client, Delete, Event, KeyRange, KeyValue, Put

from tools.console.store.keys import tree
from tools.console.store.keys.tree import Entry

WINDOW = 2000
OPEN = 200
_COUNTED_TOGETHER = 8
_MOST_COUNTED = 400  # directories of one page whose keys are counted


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the tree. ``count``: keys below a directory, None: not known yet. ``path`` of more and first:
    the directory that goes on."""

    kind: Literal["directory", "key", "more", "first"]
    path: bytes
    name: bytes
    depth: int
    is_open: bool = False
    count: int | None = None
    kv: KeyValue | None = None

    @property
    def id(self) -> str:
        """Names it among all rows."""
        return f"{self.kind[0]}{self.path.hex()}"


@dataclass(slots=True)
class _Node:
    entries: list[Entry] = field(default_factory=list)
    after: bytes | None = None
    skipped: bool = False


class Outline:
    """An open tree, or with ``flat`` the keys of one range as they are."""

    def __init__(self, client: Client, *, revision: int = 0, flat: KeyRange | None = None) -> None:
        self._client, self._revision, self._flat = client, revision, flat
        self._nodes: dict[bytes, _Node] = {}
        self._counts: dict[bytes, tuple[int, int]] = {}  # keys below a directory, as of a revision
        self.total: int | None = None  # keys of a flat list

    async def start(self, base: bytes = b"") -> None:
        """Read the first page. What was known before is read or counted again."""
        self.base = base
        self._counts.clear()
        self.close(base)
        await self._load(base, b"")

    async def reveal(self, key: bytes) -> None:
        """Open the directories that lead to a key, at its place."""
        if self._flat is not None:
            return
        for parent in tree.parents(key):
            if len(parent) > len(self.base) and parent.startswith(self.base):
                await self._show(tree.child(_above(parent, self.base), parent)[0])
                await self.open(parent)
        node = self._nodes.get(_above(key, self.base))
        if node is not None and all(entry.path != key for entry in node.entries):
            await self._show(key)

    async def open(self, path: bytes) -> None:
        """Open a directory."""
        if path not in self._nodes:
            while len(self._nodes) >= OPEN:
                self.close(next(one for one in self._nodes if one != self.base and not path.startswith(one)))
            await self._load(path, b"")

    def close(self, path: bytes) -> None:
        """Close a directory, and those in it."""
        for one in [one for one in self._nodes if one.startswith(path) and one != self.base]:
            del self._nodes[one]

    def is_open(self, path: bytes) -> bool:
        return path in self._nodes

    async def more(self, path: bytes) -> None:
        """The next page of a directory; what no longer fits into the window goes."""
        node = self._nodes.get(path)
        if node is None or node.after is None:
            return
        found = await self._read(path, node.after)
        node.entries += found.entries
        node.after = found.after
        if len(node.entries) > WINDOW:
            for entry in node.entries[:-WINDOW]:
                if entry.is_directory:
                    self.close(entry.path)
            node.entries = node.entries[-WINDOW:]
            node.skipped = True

    async def first(self, path: bytes) -> None:
        """The beginning of a directory again."""
        await self._load(path, b"")

    def rows(self) -> Iterator[Row]:
        """The lines, from top to bottom."""
        yield from self._rows(self.base, 0)

    def _rows(self, path: bytes, depth: int) -> Iterator[Row]:
        node = self._nodes[path]
        if node.skipped:
            yield Row("first", path, b"", depth)
        for entry in node.entries:
            if entry.kv is not None:
                yield Row("key", entry.path, entry.name, depth, kv=entry.kv)
                continue
            is_open = entry.path in self._nodes
            yield Row("directory", entry.path, entry.name, depth, is_open, self._count_of(entry.path))
            if is_open:
                yield from self._rows(entry.path, depth + 1)
        if node.after is not None:
            yield Row("more", path, b"", depth)

    async def count(self) -> bool:
        """Count what lies below directories that were not counted yet; whether anything is new.
        MusterError."""
        wanted = [row.path for row in self.rows() if row.kind == "directory" and row.count is None]
        gate = asyncio.Semaphore(_COUNTED_TOGETHER)

        async def one(path: bytes) -> None:
            async with gate:
                self._counts[path] = await tree.count(self._client, path, self._revision)

        counts = [asyncio.ensure_future(one(path)) for path in wanted[:_MOST_COUNTED]]
        try:
            await asyncio.gather(*counts)
        finally:  # where one fails, the others would ask on
            for count in counts:
                count.cancel()
        return bool(wanted)

    def apply(self, events: Iterable[Event]) -> bool:
        """Follow changes; whether the screen changes. New directories are counted by :meth:`count`."""
        changed = False
        for event in events:
            if isinstance(event, Put | Delete):
                changed |= self._change(event)
        return changed

    def _change(self, event: Put | Delete) -> bool:
        if self._flat is not None:
            return self._entry(b"", event, Entry(event.key, event.key, _bare(event)))
        changed = False
        for directory in [one for one in self._nodes if event.key.startswith(one)]:
            path, is_directory = tree.child(directory, event.key)
            entry = Entry(path, path[len(directory) :], None if is_directory else _bare(event))
            changed |= self._entry(directory, event, entry)
        return changed

    def _entry(self, directory: bytes, event: Put | Delete, entry: Entry) -> bool:
        node = self._nodes[directory]
        at = bisect_left(node.entries, entry.path, key=lambda one: one.path)
        known = at < len(node.entries) and node.entries[at].path == entry.path
        gone = isinstance(event, Delete)
        if entry.is_directory and known:
            return self._recount(entry.path, event)
        # a change that came while the page was read
        if known and (kv := node.entries[at].kv) is not None and kv.mod_revision > event.revision:
            return False
        if gone and not entry.is_directory:
            if known:
                del node.entries[at]
            return known
        if known:
            node.entries[at] = entry
            return True
        if gone or (node.after is not None and at == len(node.entries)) or (node.skipped and at == 0):
            return False
        node.entries.insert(at, entry)
        del node.entries[WINDOW + tree.PAGE :]
        return True

    def _count_of(self, path: bytes) -> int | None:
        return self._counts[path][0] if path in self._counts else None

    def _recount(self, path: bytes, event: Put | Delete) -> bool:
        """A directory has one key more, or fewer."""
        step = -1 if isinstance(event, Delete) else int(event.created)
        if not step or path not in self._counts or event.revision <= self._counts[path][1]:
            return False
        count, revision = self._counts[path]
        self._counts[path] = count + step, revision
        return True

    def drop_empty(self) -> bool:
        """Directories without keys are none any more; whether there were any."""
        empty = {path for path, (count, _) in self._counts.items() if count <= 0}
        for path in empty:
            del self._counts[path]
            self.close(path)
        found = False
        for node in self._nodes.values():
            kept = [entry for entry in node.entries if entry.path not in empty]
            found |= len(kept) < len(node.entries)
            node.entries = kept
        return found

    async def _show(self, path: bytes) -> None:
        """Have an entry in its directory's window."""
        directory = _above(path, self.base)
        node = self._nodes.get(directory)
        if node is None or any(entry.path == path for entry in node.entries) or node.after is None:
            return
        if path < node.after:  # not there
            return
        await self._load(directory, path)

    async def _load(self, path: bytes, after: bytes) -> None:
        found = await self._read(path, after)
        self._nodes[path] = _Node(list(found.entries), found.after, bool(after))

    async def _read(self, path: bytes, after: bytes) -> tree.Listing:
        if self._flat is None:
            return await tree.listing(self._client, path, after=after, revision=self._revision)
        found, count = await tree.flat(self._client, self._flat, after=after, revision=self._revision)
        if not after:
            self.total = count
        return found


def _above(path: bytes, base: bytes) -> bytes:
    """The directory that a path is an entry of."""
    return next((one for one in reversed(tree.parents(path)) if one != path), base)


def _bare(event: Put | Delete) -> KeyValue | None:
    """A listed key has no value; a deleted one is only looked for."""
    if isinstance(event, Put):
        return replace(event.kv, value=b"")
    return KeyValue(event.key, b"", 0, event.revision, 0)

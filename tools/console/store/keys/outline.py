"""The part of a tree that is open on a user's screen, kept in step with the store.

It is bounded: of each directory a window of at most ``WINDOW`` entries is held, and at most ``OPEN``
directories are open. So a page costs the same whatever the store holds.

What a watch tells wins over what is read meanwhile: each read keeps the changes that come, and repeats those
that are newer than its answer.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

from muster_client import Client, Delete, Event, KeyRange, KeyValue, Put

from tools.console.store.keys import tree
from tools.console.store.keys.tree import Entry

WINDOW = 2000
OPEN = 200
_COUNTED_TOGETHER = 8
_MOST_COUNTED = 400  # directories of one page whose keys are counted
Change = Put | Delete
Changes = dict[bytes, Change]
"""The last change of each key."""


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
        self._reading: list[tuple[bytes, Changes]] = []  # directories, with what is told meanwhile
        self._counts: dict[bytes, tuple[int, int]] = {}  # keys below a directory, as of a revision
        self._counting: dict[bytes, list[tuple[int, int]]] = {}  # with revision and step of each change
        self.total: int | None = None  # keys of a flat list

    async def start(self, base: bytes = b"") -> None:
        """Read the first page."""
        self.base = base
        await self._load(base, b"")

    async def again(self) -> None:
        """Read what is open again, and forget counts: changes were missed. MusterError."""
        self._counts.clear()
        for path, node in list(self._nodes.items()):
            if self._nodes.get(path) is not node:  # it is closed, or was read, meanwhile
                continue
            first = node.entries[0].path if node.skipped and node.entries else b""
            await self._load(path, first, node.entries[-1].path if node.entries else b"")
            if path != self.base and not self._nodes[path].entries:
                self.close(path)

    async def reveal(self, key: bytes) -> None:
        """Open the directories that lead to a key, at its place."""
        if self._flat is not None:
            return
        for parent in tree.parents(key):
            if len(parent) > len(self.base) and parent.startswith(self.base):
                await self._show(tree.child(_above(parent, self.base), parent)[0])
                await self.open(parent)
                if parent not in self._nodes:
                    return
        node = self._nodes.get(_above(key, self.base))
        if node is not None and all(entry.path != key for entry in node.entries):
            await self._show(key)

    async def open(self, path: bytes) -> None:
        """Open a directory, unless as many lead to it as may be open."""
        if path in self._nodes:
            return
        while len(self._nodes) >= OPEN:
            others = (one for one in self._nodes if one != self.base and not path.startswith(one))
            if (spare := next(others, None)) is None:
                return
            self.close(spare)
        await self._load(path, b"")

    def close(self, path: bytes) -> None:
        """Close a directory, and those in it. What lies in it is not followed, so its counts go."""
        for one in [one for one in self._nodes if one.startswith(path) and one != self.base]:
            del self._nodes[one]
        for one in [*self._counts, *self._counting]:
            if one.startswith(path) and one != path:
                self._counts.pop(one, None)
                self._counting.pop(one, None)

    def is_open(self, path: bytes) -> bool:
        return path in self._nodes

    async def more(self, path: bytes) -> None:
        """The next page of a directory; what no longer fits into the window goes."""
        node = self._nodes.get(path)
        if node is None or (after := node.after) is None:
            return
        with self._kept(path) as meanwhile:
            found = await self._read(path, after)
        if self._nodes.get(path) is not node or node.after != after:  # another click was quicker
            return
        node.entries += found.entries
        node.after = found.after
        self._repeat(path, meanwhile, found.revision)
        if len(node.entries) > WINDOW:
            self._forget(node.entries[:-WINDOW])
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
                steps: list[tuple[int, int]] = []
                self._counting[path] = steps
                try:
                    count, revision = await tree.count(self._client, path, self._revision)
                finally:
                    is_shown = self._counting.pop(path, None) is steps
            if is_shown:
                self._counts[path] = count + sum(step for at, step in steps if at > revision), revision

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
                change = _bare(event)
                for directory, meanwhile in self._reading:
                    if change.key.startswith(directory):
                        meanwhile[change.key] = change
                for directory in [one for one in self._nodes if change.key.startswith(one)]:
                    changed |= self._change(directory, change)
        return changed

    @contextmanager
    def _kept(self, directory: bytes) -> Iterator[Changes]:
        """What is told while a directory is read: what is read may be older."""
        reading: tuple[bytes, Changes] = (directory, {})
        self._reading.append(reading)
        try:
            yield reading[1]
        finally:
            self._reading = [one for one in self._reading if one is not reading]

    def _repeat(self, directory: bytes, meanwhile: Changes, revision: int) -> None:
        """Take changes that are newer than what was read; directories that were there have counted them."""
        for change in meanwhile.values():
            if change.revision > revision:
                self._change(directory, change, counts=False)

    def _change(self, directory: bytes, event: Change, *, counts: bool = True) -> bool:
        path, is_directory = tree.child(directory, event.key) if self._flat is None else (event.key, False)
        node, gone = self._nodes[directory], isinstance(event, Delete)
        at = bisect_left(node.entries, path, key=lambda one: one.path)
        known = at < len(node.entries) and node.entries[at].path == path
        if is_directory and known:
            return counts and self._recount(path, event)
        # a change that came while the page was read
        if known and (kv := node.entries[at].kv) is not None and kv.mod_revision > event.revision:
            return False
        if gone and not is_directory:
            if known:
                del node.entries[at]
            return known
        entry = Entry(path, path[len(directory) :], None if is_directory else _listed(event))
        if known:
            node.entries[at] = entry
            return True
        if gone or (node.after is not None and path >= node.after) or (node.skipped and at == 0):
            return False
        node.entries.insert(at, entry)
        if cut := node.entries[WINDOW + tree.PAGE :]:
            node.after = cut[0].path
            self._forget(cut)
            del node.entries[WINDOW + tree.PAGE :]
        return True

    def _forget(self, entries: Iterable[Entry]) -> None:
        """Close and count no more what is in no window."""
        for path in (entry.path for entry in entries if entry.is_directory):
            if path in self._nodes:
                self.close(path)
            self._counts.pop(path, None)
            self._counting.pop(path, None)

    def _count_of(self, path: bytes) -> int | None:
        return self._counts[path][0] if path in self._counts else None

    def _recount(self, path: bytes, event: Change) -> bool:
        """A directory has one key more, or fewer."""
        step = -1 if isinstance(event, Delete) else int(event.created)
        if step and path in self._counting:
            self._counting[path].append((event.revision, step))
        if not step or path not in self._counts or event.revision <= self._counts[path][1]:
            return False
        count, revision = self._counts[path]
        self._counts[path] = count + step, revision
        return True

    def drop_empty(self) -> bool:
        """Directories without keys are none any more; whether there were any."""
        empty = {path for path, (count, _) in self._counts.items() if count <= 0}
        for path in empty:
            self.close(path)
            self._counts.pop(path, None)
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
        if node is None or any(entry.path == path for entry in node.entries):
            return
        before = node.skipped and (not node.entries or path < node.entries[0].path)
        if before or (node.after is not None and path >= node.after):
            await self._load(directory, path)

    async def _load(self, path: bytes, after: bytes, last: bytes = b"") -> None:
        """Read a directory's window anew, from ``after`` on, and as far as ``last``."""
        with self._kept(path) as meanwhile:
            found = await self._read(path, after)
            node = _Node(list(found.entries), found.after, bool(after))
            while node.after is not None and node.after <= last and len(node.entries) < WINDOW:
                further = await self._read(path, node.after)
                node.entries += further.entries
                node.after = further.after
        before = self._nodes.get(path)
        self._nodes[path] = node
        if before is not None:
            there = {entry.path for entry in node.entries}
            self._forget(entry for entry in before.entries if entry.path not in there)
        self._repeat(path, meanwhile, found.revision)

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


def _bare(event: Change) -> Change:
    """A change without its values."""
    return Put(replace(event.kv, value=b"")) if isinstance(event, Put) else Delete(event.key, event.revision)


def _listed(event: Change) -> KeyValue:
    """A key as lists have it; a deleted one is only looked for."""
    return event.kv if isinstance(event, Put) else KeyValue(event.key, b"", 0, event.revision, 0)

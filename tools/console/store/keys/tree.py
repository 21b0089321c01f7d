"""Keys as a tree of directories, cut at slashes, page by page.

The store has no directories. A page is read from left to right: keys of one directory become one entry, and
the next request begins behind that directory. So a page costs a request for each large directory in it at
most, whatever lies below: a store of a million keys shows its top in a few milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from muster_client import Client, KeyRange, KeyValue, Pages, prefix

PAGE = 200
_REQUESTS = 48  # of a page: one of large directories has fewer entries
_FIRST, _AFTER_JUMP, _MOST = 100, 16, 400  # keys that a request asks for


@dataclass(frozen=True, slots=True)
class Entry:
    """A key, or a directory of keys: ``path`` is the key, or the prefix with its slash at the end."""

    path: bytes
    name: bytes
    kv: KeyValue | None = None  # without its value

    @property
    def is_directory(self) -> bool:
        return self.kv is None


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of a directory. ``after``: where the next page begins, None: there is none. ``revision``: as of
    which it was read."""

    entries: tuple[Entry, ...]
    after: bytes | None
    revision: int


def child(directory: bytes, key: bytes) -> tuple[bytes, bool]:
    """The entry of a directory that leads to a key: the key itself, or a directory, with its slash, and true.

    A slash that begins a name belongs to it: ``/a/b`` lies in ``/a/`` at the top, not in ``/``.
    """
    cut = key.find(b"/", len(directory) + 1)
    return (key, False) if cut < 0 else (key[: cut + 1], True)


def parents(key: bytes) -> list[bytes]:
    """The directories that lead to a key, outermost first."""
    found: list[bytes] = []
    path, is_directory = child(b"", key)
    while is_directory:
        found.append(path)
        path, is_directory = child(path, key)
    return found


async def listing(
    client: Client, directory: bytes, *, after: bytes = b"", revision: int = 0, limit: int = PAGE
) -> Listing:
    """A page of a directory's entries, from ``after`` on."""
    end = prefix(directory).end
    start = max(after, directory) or b"\0"
    entries: list[Entry] = []
    step = _FIRST
    for _ in range(_REQUESTS):
        kvs, revision = await _page(client, KeyRange(start, end), revision, step)
        for kv in kvs:
            if kv.key < start:  # within a directory that is an entry already
                continue
            if len(entries) == limit:
                return Listing(tuple(entries), start, revision)
            path, is_directory = child(directory, kv.key)
            entries.append(Entry(path, path[len(directory) :], None if is_directory else kv))
            start = prefix(path).end if is_directory else path + b"\0"
        if len(kvs) < step or (start >= end and end != b"\0"):
            return Listing(tuple(entries), None, revision)
        step = _AFTER_JUMP if start > kvs[-1].key + b"\0" else min(2 * step, _MOST)
    return Listing(tuple(entries), start, revision)


async def flat(
    client: Client, keys: KeyRange, *, after: bytes = b"", revision: int = 0
) -> tuple[Listing, int]:
    """A page of a range's keys, as they are, and how many the range has from ``after`` on."""
    where = KeyRange(max(after, keys.start) or b"\0", keys.end)
    pages = client.range(where, revision=revision, page=PAGE, keys_only=True)
    kvs = await _first(pages)
    more = pages.count > len(kvs)
    entries = tuple(Entry(kv.key, kv.key, kv) for kv in kvs)
    return Listing(entries, kvs[-1].key + b"\0" if more else None, pages.revision), pages.count


async def count(client: Client, directory: bytes, revision: int = 0) -> tuple[int, int]:
    """How many keys lie below a directory, and as of which revision."""
    pages = client.range(prefix(directory), revision=revision, page=1, keys_only=True)
    await pages.next()
    return pages.count, pages.revision


async def _page(client: Client, keys: KeyRange, revision: int, step: int) -> tuple[list[KeyValue], int]:
    pages = client.range(keys, revision=revision, page=step, keys_only=True)
    return await _first(pages), pages.revision


async def _first(pages: Pages) -> list[KeyValue]:
    """The first page; the others are not fetched."""
    kv = await pages.next()
    found: list[KeyValue] = []
    while kv is not None:
        found.append(kv)
        kv = pages.waiting()
    return found

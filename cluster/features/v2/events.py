"""What happened to a node of the tree: an event, as rows hold it and as fronts get it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice


class Action(IntEnum):
    """Numbers are never reused."""

    GET = 0
    SET = 1
    CREATE = 2
    UPDATE = 3
    COMPARE_AND_SWAP = 4
    DELETE = 5
    COMPARE_AND_DELETE = 6
    EXPIRE = 7


#: By action.
NAMES = ("get", "set", "create", "update", "compareAndSwap", "delete", "compareAndDelete", "expire")
HEAD = struct.Struct("<QBBqQqqQQI")
# index, action, flags, at, created, expires; of the previous node: expires, modified, created; key length
LENGTH = struct.Struct("<I")
_REFRESH, _DIR, _GONE, PREV, _PREV_DIR = 1, 2, 4, 8, 16


@dataclass(slots=True, frozen=True)
class Shown:
    """A node, as an event shows it."""

    key: bytes
    directory: bool
    value: bytes | None  # None: it is a directory, or gone
    expires_ns: int  # 0: never
    modified: int
    created: int


@dataclass(slots=True, frozen=True)
class Event:
    action: Action
    node: Shown
    prev: Shown | None
    at_ns: int  # ``Write.now_ns``: what is left of a TTL is shown from there
    refresh: bool = False  # no wait ends

    @property
    def index(self) -> int:
        """The index that it gave the tree."""
        return self.node.modified

    @property
    def created(self) -> bool:
        """Whether the key is new: 201."""
        return self.action == Action.CREATE or (self.action == Action.SET and self.prev is None)

    def encode(self) -> bytes:
        """The value of its row."""
        node, prev = self.node, self.prev
        gone = not node.directory and node.value is None
        flags = self.refresh * _REFRESH + node.directory * _DIR + gone * _GONE
        value = node.value or b""
        expires_ns, modified, created, before = 0, 0, 0, b""
        if prev is not None:
            flags += PREV + prev.directory * _PREV_DIR
            expires_ns, modified, created = prev.expires_ns, prev.modified, prev.created
            before = prev.value or b""
        head = HEAD.pack(
            node.modified, self.action, flags, self.at_ns, node.created, node.expires_ns, expires_ns,
            modified, created, len(node.key),
        )
        return b"".join((head, node.key, LENGTH.pack(len(value)), value, before))

    @classmethod
    def decode(cls, row: bytes) -> Event:
        """The event of such a row. struct.error, ValueError: it is none."""
        index, action, flags, at_ns, created, expires, prev_expires, modified, prev_created, length = (
            HEAD.unpack_from(row)
        )
        at = HEAD.size + length
        key = row[HEAD.size : at]
        (value_length,) = LENGTH.unpack_from(row, at)
        at += LENGTH.size
        value = None if flags & (_DIR | _GONE) else row[at : at + value_length]
        node = Shown(key, bool(flags & _DIR), value, expires, index, created)
        prev = None
        if flags & PREV:
            directory = bool(flags & _PREV_DIR)
            before = None if directory else row[at + value_length :]
            prev = Shown(key, directory, before, prev_expires, modified, prev_created)
        return cls(Action(action), node, prev, at_ns, bool(flags & _REFRESH))


@dataclass(slots=True, frozen=True)
class Brief:
    """The part of an event that says which waits it concerns."""

    index: int
    key: bytes
    refresh: bool
    sweeps: bool

    @classmethod
    def of(cls, row: bytes) -> Brief:
        """struct.error, ValueError: it is no event's row."""
        head = HEAD.unpack_from(row)
        flags = head[2]
        key = row[HEAD.size : HEAD.size + head[-1]]
        swept = _sweeps(head[1]) and bool(flags & _PREV_DIR)
        return cls(head[0], key, bool(flags & _REFRESH), swept)


def _sweeps(action: int) -> bool:
    return action in (Action.DELETE, Action.EXPIRE)


def index_of(row: bytes) -> int:
    """The index of an event. struct.error: it is no event's row."""
    index: int = HEAD.unpack_from(row)[0]
    return index


def below(path: bytes) -> bytes:
    """What the paths of everything below a directory begin with."""
    return path if path.endswith(b"/") else path + b"/"


def concerns(watched: bytes, recursive: bool, event: Brief, swept: bool) -> bool:
    """Whether an event ends a wait at a path. ``swept``: the path went with the event's directory."""
    if event.refresh:
        return False
    if event.key == watched or swept:
        return True
    if not recursive or not event.key.startswith(below(watched)):
        return False
    return b"/_" not in event.key[len(below(watched)) - 1 :]  # hidden nodes end no wait above them


_FOLLOWED = struct.Struct("<QB")  # index, whether there is a gap before
_NEWS = struct.Struct("<II")  # lengths of the event and of what it swept
#: The paths of everything that went with a directory, its own among them; of a large one they are read once.
Swept = tuple[bytes, ...] | Iterator[bytes]
_AT_ONCE = 1000  # paths of a large directory: 1 ms


def told(index: int, events: list[tuple[bytes, Swept]]) -> Iterator[tuple[bytes, bool]]:
    """V2_EVENTS of events that were applied, in steps, and whether more follow: an event of a large directory
    comes again with more paths. A step names the index up to which no path is left to tell."""
    ready: list[tuple[bytes, Swept]] = []
    for row, swept in events:
        if isinstance(swept, tuple):
            ready.append((row, swept))
            continue
        while paths := tuple(islice(swept, _AT_ONCE)):
            yield encode_news(index_of(row) - 1, False, [*ready, (row, paths)]), True
            ready = []
    yield encode_news(index, False, ready), False


def encode_news(index: int, gap: bool, events: list[tuple[bytes, Swept]]) -> bytes:
    """V2_EVENTS: events that were applied, and what each swept. ``gap``: events before are not told."""
    parts = [_FOLLOWED.pack(index, gap)]
    for row, swept in events:
        paths = b"/".join(swept)  # each begins with "/", and none holds two in a row
        parts += (_NEWS.pack(len(row), len(paths)), row, paths)
    return b"".join(parts)


def decode_news(body: bytes) -> tuple[int, bool, list[tuple[bytes, Swept]]]:
    """The tree's index, whether there is a gap before, events with what each swept."""
    index, gap = _FOLLOWED.unpack_from(body)
    at = _FOLLOWED.size
    events: list[tuple[bytes, Swept]] = []
    while at < len(body):
        size, swept_size = _NEWS.unpack_from(body, at)
        at += _NEWS.size
        middle = at + size
        end = middle + swept_size
        first, *others = body[middle:end].split(b"//")
        swept = (first, *[b"/" + path for path in others]) if swept_size else ()
        events.append((body[at:middle], swept))
        at = end
    return index, bool(gap), events

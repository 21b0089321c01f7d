"""The tree: a fold of rows, the same at every replica at the same place of the order.

Rows, by name (``cluster.features.rows``)::

    c, C          the index and what was counted (``counters``)
    g<path>       nothing: a large directory went, and rows of what it held are still here
    h<slot u16>   an event (``events.Event``): the last ``KEPT`` ones, by their index, less the oldest of them
                  while all have more than ``MOST_BYTES``
    n<path>       flags u8 | created u64 | modified u64 | expires i64 (ns since 1970, 0: never) | value

The row of a directory stands before those of what it holds. One request writes the nodes that it changes, its
event and the counters, in this order, so its cost does not grow with the tree.

What a large directory held goes with the directory's row: no node stands whose directory is not there, or is
younger than the node. The rows of such nodes go later, some at a time (``Tree.clear``). The ``g`` row goes
with the last of them.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Iterable, Iterator

from cluster.faults import faults
from cluster.features.rows import Row
from cluster.features.v2.counters import COUNTED, COUNTER_ROW, HIGH_ROW, counter_rows, with_high, with_low
from cluster.features.v2.events import Brief, Swept, index_of
from cluster.features.v2.history import FIRST, KEPT, MOST_BYTES, History, Sizes
from cluster.features.v2.refusals import Code, V2Error

KEYS, AUTH = b"/1", b"/2"  # etcd's namespaces
FIRST_INDEX = FIRST - 1  # of a tree without writes: what a single etcd spends on its own records
_NODE, _EVENT, _GOING = b"n", b"h", b"g"
_SLOT = struct.Struct(">H")
_HEAD = struct.Struct("<BQQq")
_DIR = 1
_FILE = b"\0"  # what the row of a file begins with
_SETS = COUNTED.index("setsSuccess")
_LEAST_STALE = 64
_STALE_AT_ONCE, _FREED_AT_ONCE = 10_000, 20_000  # 10 ms, 5 ms


def namespace(path: bytes) -> bytes:
    """What stands before a path that clients do not see."""
    return path[:2] if path[:3] in (KEYS, AUTH, KEYS + b"/", AUTH + b"/") else b""


class Node:
    """A file or a directory. A change puts another one in its place; only what a directory holds changes."""

    __slots__ = ("children", "clear", "created", "expires_ns", "key", "modified", "value")

    def __init__(
        self, key: bytes, directory: bool, created: int, modified: int, expires_ns: int, value: bytes
    ) -> None:
        self.key = key  # its whole path
        self.children: dict[bytes, Node] | None = {} if directory else None  # None: a file
        self.created = created
        self.modified = modified
        self.expires_ns = expires_ns  # 0: never
        self.value = value
        self.clear = False  # whether JSON escapes nothing of key and value, where that is known

    @property
    def hidden(self) -> bool:
        """Whether no list shows it."""
        return self.key[self.key.rfind(b"/") + 1 :].startswith(b"_")


def _paths(node: Node) -> Iterator[bytes]:
    """Its path, and those of everything below it."""
    left = [node]
    while left:
        some = left.pop()
        yield some.key
        left += (some.children or {}).values()


def _swept(event: bytes, removed: list[bytes], gone: Iterator[bytes] | None) -> Swept:
    return (gone or tuple(removed)) if Brief.of(event).sweeps else ()


def node_row(key: bytes, directory: bool, created: int, modified: int, expires_ns: int, value: bytes) -> Row:
    return _NODE + key, _HEAD.pack(_DIR if directory else 0, created, modified, expires_ns) + value


def file_row(key: bytes, index: int, value: bytes) -> Row:
    """The row of a file that is made at an index and never expires."""
    return _NODE + key, _HEAD.pack(0, index, index, 0) + value


def gone_row(key: bytes) -> Row:
    """The row of a node that is deleted."""
    return _NODE + key, None


def going_row(key: bytes, ended: bool = False) -> Row:
    """The row of a large directory that goes, before the one that deletes it."""
    return _GOING + key, None if ended else b""


def event_row(index: int, event: bytes) -> Row:
    """The row of an event, in the place of the one that is forgotten for it."""
    return _EVENT + _SLOT.pack(index % KEPT), event


class SetRows(list[Row]):
    """Rows of files that were set one after the other, each its file's and its event's, at last the
    counters', and the files, which the tree takes instead of reading the rows. A file never changes."""

    __slots__ = ("files",)

    def __init__(self) -> None:
        super().__init__()
        self.files: list[Node] = []  # of those without a TTL, before and behind it


class Tree:
    """All nodes; rows change them."""

    def __init__(self, rows: Iterable[Row] = (), *, keep_events: bool = True) -> None:
        """``keep_events``: for scans of the past; evaluation needs none."""
        self.root = Node(b"/", True, 0, 0, 0, b"")
        assert self.root.children is not None
        self.root.children[KEYS[1:]] = Node(KEYS, True, 0, 0, 0, b"")
        self.index = FIRST_INDEX
        self.written = False  # whether the index is that of a row
        self.counts = [0] * len(COUNTED)
        self.uncounted = False  # whether a refusal is counted here that no row holds
        self.history = History() if keep_events else None
        self._sizes = None if keep_events else Sizes()  # of the events that are stored
        self._near: bytes | None = None  # a directory that was asked for, and what it holds
        self._near_children = self.root.children
        self._expiring: dict[bytes, int] = {}  # by path, when
        self._heap: list[tuple[int, bytes]] = []  # some are stale
        self.going: set[bytes] = set()  # large directories that went, and rows of what they held did not
        self._left: list[Node] = []  # what they held: each stands for what is below it, too
        self.take(self._standing(rows))
        if self.history is not None:
            self.history.read()

    def counted(self) -> dict[str, int]:
        """What was done to it since it was made, by the names of /v2/stats/store."""
        return dict(zip(COUNTED, self.counts, strict=True))

    def copy(self) -> Tree:
        """A copy to evaluate with, without events."""
        made = Tree(keep_events=False)
        made.index, made.written, made.counts = self.index, self.written, list(self.counts)
        made._sizes = self.sizes.copy()
        made._expiring, made._heap = dict(self._expiring), list(self._heap)
        if self.going:
            made.going, made._left = set(self.going), list(self._left)
        made.root.children = dict(self.root.children or {})
        left = [made.root.children]
        while left:
            children = left.pop()
            for name, child in children.items():
                if child.children is not None:
                    twin = Node(child.key, True, child.created, child.modified, child.expires_ns, child.value)
                    twin.children = child.children.copy()
                    children[name] = twin
                    left.append(twin.children)
        return made

    # -- reading

    def find(self, path: bytes) -> Node:
        """The node there. V2Error: there is none."""
        node = self.root
        if path == b"/":
            return node
        for name in path.split(b"/")[1:]:
            if node.children is None:
                raise V2Error(Code.NOT_DIR, node.key, self.index)
            child = node.children.get(name)
            if child is None:
                missing = (b"" if node is self.root else node.key) + b"/" + name
                raise V2Error(Code.KEY_NOT_FOUND, missing, self.index)
            node = child
        return node

    def children_of(self, path: bytes) -> dict[bytes, Node] | None:
        """What the directory there holds; None: there is none. Hot path: the last directory is cached."""
        if path == self._near:
            return self._near_children
        node: Node | None = self.root
        for name in path.split(b"/")[1:]:
            if node is None or node.children is None:
                return None
            node = node.children.get(name)
        if node is None or node.children is None:
            return None
        self._near, self._near_children = path, node.children
        return node.children

    def due(self, now_ns: int) -> bool:
        """Whether the first time is over; its node may have gone."""
        return bool(self._heap) and self._heap[0][0] <= now_ns

    def first_due(self) -> Node | None:
        """The node whose time that is; None: it has gone, and the time is forgotten."""
        when, path = self._heap[0]
        if self._expiring.get(path) == when:
            node = self._at(path)
            if node is not None and node.expires_ns == when:
                return node
            del self._expiring[path]  # it went with a large directory
        heapq.heappop(self._heap)
        return None

    def _at(self, path: bytes) -> Node | None:
        above, _, name = path.rpartition(b"/")
        children = self.children_of(above)
        return None if children is None else children.get(name)

    @property
    def next_expiry_ns(self) -> int | None:
        """When the first node's time is over, before 1970 where a TTL wrapped; None: no node has one. It is
        early while very many have gone."""
        heap = self._heap
        for _ in range(_STALE_AT_ONCE):
            if not heap or self._expiring.get(heap[0][1]) == heap[0][0]:
                break
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    # -- the fold

    @property
    def sizes(self) -> Sizes:
        """Of the stored events; counted at each call where events are kept."""
        if self._sizes is not None:
            return self._sizes
        assert self.history is not None, "one of both is there"
        return self.history.sizes()

    @property
    def full(self) -> bool:
        """Whether events go with the next change (``outdated``)."""
        sizes = self._sizes
        return (self.sizes if sizes is None else sizes).bytes > MOST_BYTES

    def outdated(self) -> list[Row]:
        """The rows of events that go with the next change: all together have too many bytes."""
        return [(_EVENT + _SLOT.pack(index % KEPT), None) for index in self.sizes.outdated()]

    def set_done(self, index: int, event_bytes: int) -> None:
        """A file was put in its place at this index."""
        self.index = index
        if self._sizes is not None:
            self._sizes.add(index, event_bytes)
        self.written = True
        self.counts[_SETS] += 1

    def set_until(self, path: bytes, row: Row) -> None:
        """Put a file in its place by its row: it has a TTL, or the one before it had."""
        self._put(path, row[1] or b"")

    def counters(self) -> list[Row]:
        self.uncounted = False
        return counter_rows(self.index, self.counts)

    def take(self, rows: Iterable[Row]) -> list[tuple[bytes, Swept]]:
        """Take rows in; the events among them, and what each swept. A row that cannot be read changes
        nothing, here as at every other replica."""
        events: list[tuple[bytes, Swept]] = []
        removed: list[bytes] = []  # the last node that was deleted, and those below it
        below = b""  # what the paths of those begin with
        gone: Iterator[bytes] | None = None  # all of these, of a large directory
        if isinstance(rows, SetRows) and 0 < len(rows) - 2 * len(rows.files) < 3:
            rows = self._take_files(rows, events)
        for name, value in rows:
            try:
                kind = name[:1]
                if kind == _NODE:
                    if value is None:
                        below = self._delete(name[1:], below, removed)
                    elif value[:1] != _FILE or not self._put_file(name[1:], value):
                        self._put(name[1:], value)
                elif kind == _EVENT and value is not None:
                    if self.history is not None:
                        self.history.add(value)
                        events.append((value, _swept(value, removed, gone) if removed else ()))
                    if removed:
                        removed, below, gone = [], b"", None
                    if self._sizes is not None:
                        self._sizes.add(index_of(value), len(value))
                elif kind == _EVENT:
                    self._forget(*_SLOT.unpack_from(name, 1))
                elif name in (COUNTER_ROW, HIGH_ROW) and value is not None:
                    self._count(name, value)
                elif kind == _GOING:
                    gone = self._goes(name[1:], value is None)
            except (struct.error, ValueError, IndexError) as error:
                faults.met("taking a row of the v2 tree", error)
        return events

    def _count(self, name: bytes, row: bytes) -> None:
        if name == HIGH_ROW:
            self.counts = with_high(self.counts, row)
        else:
            self.index, self.counts = with_low(self.counts, row)
            self.written, self.uncounted = True, False

    def _take_files(self, rows: SetRows, events: list[tuple[bytes, Swept]]) -> list[Row]:
        """Take the files in; the rows that are left. Hot path: half the time."""
        history = self.history
        at = 0
        for file in rows.files:
            path = file.key
            above, _, name = path.rpartition(b"/")
            children = self.children_of(above)
            event = rows[at + 1][1]
            if children is None or history is None or event is None:
                break  # of rows that no set of ours writes
            before = children.get(name)
            if before is not None and before.children is not None:
                break
            children[name] = file
            if self._expiring:
                self._expiring.pop(path, None)
            history.add(event)
            events.append((event, ()))
            at += 2
        return rows[at:]

    def _forget(self, slot: int) -> None:
        if self._sizes is not None:
            self._sizes.forget(slot)
        if self.history is not None:
            self.history.forget(slot)

    def _put_file(self, path: bytes, row: bytes) -> bool:
        """Put a file that does not expire into the cached directory, over a file or nothing. False: it is
        another case. Hot path."""
        above, slash, name = path.rpartition(b"/")
        if above != self._near or not slash:
            return False
        children = self._near_children
        node = children.get(name)
        if node is not None and node.children is not None:
            return False
        _, created, modified, expires_ns = _HEAD.unpack_from(row)
        if expires_ns:
            return False
        children[name] = Node(path, False, created, modified, 0, row[_HEAD.size :])
        if self._expiring:
            self._expiring.pop(path, None)
        return True

    def _put(self, path: bytes, row: bytes) -> None:
        flags, created, modified, expires_ns = _HEAD.unpack_from(row)
        above, slash, name = path.rpartition(b"/")
        children = self.children_of(above)
        if children is None or not slash:
            *names, name = path.split(b"/")[1:]
            children = self._directory(names).children
            assert children is not None
        directory = bool(flags & _DIR)
        node = children.get(name)
        made = children[name] = Node(path, directory, created, modified, expires_ns, row[_HEAD.size :])
        if node is not None and (directory or node.children is not None):
            if directory and node.children is not None:
                made.children = node.children
            else:
                self._forget_below(node)
        if made.children is not None:  # the next row is of a node in it, as a rule
            self._near, self._near_children = path, made.children
        if expires_ns:
            if self._expiring.get(path) != expires_ns:
                self._expiring[path] = expires_ns
                heapq.heappush(self._heap, (expires_ns, path))
                if len(self._heap) > 2 * len(self._expiring) + _LEAST_STALE:
                    self._forget_stale()
        elif self._expiring:
            self._expiring.pop(path, None)

    def _forget_stale(self) -> None:
        self._heap = [(when, of) for of, when in self._expiring.items()]
        heapq.heapify(self._heap)

    def _directory(self, names: list[bytes]) -> Node:
        """The directory there. It is made where it is missing or a file, the same at every replica; no row of
        ours needs that."""
        node = self.root
        path = b""
        for name in names:
            path += b"/" + name
            assert node.children is not None
            child = node.children.get(name)
            if child is None or child.children is None:
                child = node.children[name] = Node(path, True, 0, 0, 0, b"")
                self._expiring.pop(path, None)
            node = child
        return node

    def _delete(self, path: bytes, below: bytes, removed: list[bytes]) -> bytes:
        """A node is deleted. ``removed``: the last one that was looked for, and those that went with it.
        ``below``: what their paths begin with; the answer is that from here on."""
        if not below or not path.startswith(below):
            self._remove(path)
            removed.clear()
            below = path + b"/"
        removed.append(path)
        if self._expiring:
            self._expiring.pop(path, None)
        return below

    def _remove(self, path: bytes) -> None:
        above, _, name = path.rpartition(b"/")
        children = self.children_of(above)
        node = None if children is None else children.pop(name, None)
        if node is not None and node.children is not None:
            self._near = None

    # -- large directories that go

    def _goes(self, path: bytes, ended: bool) -> Iterator[bytes] | None:
        """A large directory is about to go: the paths of all that goes with it. ``ended``: all rows went."""
        if ended:
            self.going.discard(path)
            return None
        self.going.add(path)
        node = self._at(path)
        if node is None:  # at a start
            return None
        self._left += (node.children or {}).values()
        return _paths(node)

    def clear(self, most: int, most_bytes: int) -> list[Row]:
        """The rows that delete some of what is left of large directories; the tree has taken them."""
        rows: list[Row] = []
        below, size = b"", 0
        for _ in range(most):
            if not self._left or size >= most_bytes:
                break
            node = self._left.pop()
            path = node.key
            self._left += (node.children or {}).values()
            size += len(path)
            known = bool(below) and path.startswith(below)
            there = None if known else self._at(path)
            if there is None:
                if not known:
                    below = path + b"/"
                self._expiring.pop(path, None)
                rows.append(gone_row(path))
            elif there.children is not None:  # a later one, as the next ones may be
                self._near, self._near_children = path, there.children
        if self.going and not self._left:
            rows += [going_row(path, True) for path in sorted(self.going)]
            self.going.clear()
            if len(self._heap) > 1.2 * len(self._expiring) + _LEAST_STALE:  # they hold up what expires
                self._forget_stale()
        return rows

    def free(self) -> None:
        """Forget some of what a leader has cleared."""
        if self._left and not self.going:
            del self._left[-_FREED_AT_ONCE:]

    def _standing(self, rows: Iterable[Row]) -> Iterable[Row]:
        """Rows of a state without those of nodes that went, which are left to be cleared."""
        rows = list(rows)
        if not any(name[:1] == _GOING for name, _ in rows):
            return rows
        found: list[Row] = []
        created_at = {b"": 0, KEYS: 0}  # of directories that stand
        for name, value in rows:
            if name[:1] == _NODE and value is not None and len(value) >= _HEAD.size:
                path = name[1:]
                flags, created, _, _ = _HEAD.unpack_from(value)
                if created < created_at.get(path[: path.rfind(b"/")], created + 1):
                    self._left.append(Node(path, False, 0, 0, 0, b""))
                    continue
                if flags & _DIR:
                    created_at[path] = created
            found.append((name, value))
        self._left.reverse()  # a directory before what it held
        return found

    def _forget_below(self, node: Node | None) -> None:
        """Nothing below ``node`` expires any more, and no directory there is cached."""
        if node is not None and node.children is not None:
            self._near = None
        if not self._expiring:
            return
        left = [] if node is None else [node]
        while left:
            some = left.pop()
            self._expiring.pop(some.key, None)
            left.extend((some.children or {}).values())

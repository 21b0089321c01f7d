"""Changes of the tree: each request of etcd's v2 store, evaluated.

A change is refused with etcd's error, or gives the rows that it writes; the same request at the same tree
gives the same rows. The tree takes them once they are logged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cluster import errors
from cluster.features.rows import Row
from cluster.features.v2.counters import COUNTED, counter_rows
from cluster.features.v2.events import Action, Event, Shown
from cluster.features.v2.refusals import Code, V2Error
from cluster.features.v2.requests import Answer, Op, Write, left_to_front
from cluster.features.v2.shown import event_json
from cluster.features.v2.tree import (
    KEYS,
    Node,
    Tree,
    event_row,
    going_row,
    gone_row,
    namespace,
    node_row,
)
from cluster.features.v2.users import refusal
from cluster.pacing.pace import MAX_ENTRY_BYTES

LONG_PAST_NS = 946_684_800 * 10**9  # what is set to expire before 2000 never does, as in etcd
_READ_ONLY = frozenset((b"/", KEYS))
# a directory with more nodes, or bytes of their paths, is large: the rows of what it held go later
_MOST_AT_ONCE, _MOST_BYTES_AT_ONCE = 256, 256 << 10
_MOST_MADE_BYTES = 512 << 10  # of paths of directories that a write makes: 4 KB asked for 10 MB of rows


@dataclass(slots=True, frozen=True)
class Change:
    """A change that is to be logged."""

    event: Event
    rows: list[Row]


_PLACE = {name: place for place, name in enumerate(COUNTED)}
_COUNTED_AS = {
    Op.SET: "sets",
    Op.CREATE: "create",
    Op.CREATE_IN_ORDER: "create",
    Op.UPDATE: "update",
    Op.COMPARE_AND_SWAP: "compareAndSwap",
    Op.DELETE: "delete",
    Op.COMPARE_AND_DELETE: "compareAndDelete",
}
_DONE = {op: _PLACE[f"{name}Success"] for op, name in _COUNTED_AS.items()}
_FAILED = {op: _PLACE[f"{name}Fail"] for op, name in _COUNTED_AS.items()}
_EXPIRED = _PLACE["expireCount"]


def answered(tree: Tree, body: bytes) -> tuple[list[Row], bytes]:
    """The rows that a request writes, which the tree is to take, and its answer; none, and the refusal.
    struct.error, ValueError: it is no request."""
    write = Write.decode(body)
    denied = refusal(tree, write.who, write.path, write.slash, write.recursive, write=True)
    if denied is not None:
        return [], denied.encode()
    prefix = namespace(write.path)
    left: list[bytes] = []
    try:
        change = evaluate(tree, write)
    except V2Error as refused:
        answer = Answer(refused.index, refused.json(prefix, left), refused.code)
        return [], left_to_front(answer, left).encode()
    event = change.event
    answer = Answer(event.index, event_json(event, prefix, left), 0, event.action, event.created)
    return change.rows, left_to_front(answer, left).encode()


def evaluate(tree: Tree, write: Write) -> Change:
    """The rows that a change writes, its event's and the counters' last. V2Error: the refusal, which is
    counted."""
    try:
        event, rows = _EVALUATE[write.op](tree, write)
    except V2Error:
        tree.counts[_FAILED[write.op]] += 1  # logged with the next change, or soon
        tree.uncounted = True
        raise
    return _logged(tree, event, rows, _DONE[write.op])


def expire(tree: Tree, now_ns: int, most: int = 1000) -> list[Row]:
    """The rows that end the nodes whose time is over, the first ones first, and that clear what large
    directories held; the tree has taken them. ``most`` nodes, and not many more bytes than an entry has: each
    event holds the old value."""
    logged: list[Row] = []
    size = ended = 0
    for _ in range(4 * most):  # many have gone
        full = size >= MAX_ENTRY_BYTES or ended == most or len(logged) > 8 * most
        if full or not tree.due(now_ns):
            break
        node = tree.first_due()
        if node is None:
            continue
        ended += 1
        event = Event(Action.EXPIRE, _gone(node, tree.index + 1), _shown(node), now_ns)
        rows = _logged(tree, event, _removed(node), _EXPIRED).rows
        tree.take(rows)
        logged += rows
        size += sum([len(name) + len(value or b"") for name, value in rows])
    return logged + tree.clear(4 * most, MAX_ENTRY_BYTES >> 2)


def _logged(tree: Tree, event: Event, rows: list[Row], counted: int) -> Change:
    counts = list(tree.counts)
    counts[counted] += 1
    rows.append(event_row(event.index, event.encode()))
    rows += counter_rows(event.index, counts)
    return Change(event, tree.outdated() + rows)


_Done = tuple[Event, list[Row]]


def _shown(node: Node) -> Shown:
    directory = node.children is not None
    value = None if directory else node.value
    return Shown(node.key, directory, value, node.expires_ns, node.modified, node.created)


def _gone(node: Node, index: int) -> Shown:
    return Shown(node.key, node.children is not None, None, 0, index, node.created)


def _removed(node: Node) -> list[Row]:
    """The rows of a node and of everything below it, in an order that is the same for equal trees. Of a large
    directory its own alone: the tree clears the others."""
    gone, size = [], 0
    left = [node]
    while left:
        some = left.pop()
        gone.append(some.key)
        size += len(some.key)
        below = some.children or {}
        if len(gone) + len(left) + len(below) > _MOST_AT_ONCE or size > _MOST_BYTES_AT_ONCE:
            return [going_row(node.key), gone_row(node.key)]
        left.extend(below.values())
    gone.sort()  # the node itself is the first
    return [*map(gone_row, gone)]


def _not_root(tree: Tree, path: bytes) -> None:
    if path in _READ_ONLY:
        raise V2Error(Code.ROOT_READ_ONLY, b"/", tree.index)


def _expires(write: Write) -> int:
    return write.expires_ns if write.expires_ns >= LONG_PAST_NS else 0


def _set(tree: Tree, write: Write) -> _Done:
    value = write.value
    try:
        before: Node | None = tree.find(write.path)
    except V2Error as error:
        if error.code != Code.KEY_NOT_FOUND or write.refresh:
            raise
        before = None
    if write.refresh and before is not None:
        value = before.value
    return _made(tree, write, write.path, value, Action.SET, before)


def _create(tree: Tree, write: Write) -> _Done:
    return _made(tree, write, write.path, write.value, Action.CREATE, None)


def _create_in_order(tree: Tree, write: Write) -> _Done:
    path = (b"" if write.path == b"/" else write.path) + b"/%020d" % (tree.index + 1)
    return _made(tree, write, path, write.value, Action.CREATE, None)


def _made(tree: Tree, write: Write, path: bytes, value: bytes, action: Action, before: Node | None) -> _Done:
    """A node that is new, with the directories above it, or in the place of a file."""
    _not_root(tree, path)
    index = tree.index + 1
    rows: list[Row] = []
    *above, last = path.split(b"/")[1:]
    node: Node | None = tree.root
    at, size = b"", 0
    for name in above:
        at += b"/" + name
        if node is not None:
            assert node.children is not None
            node = node.children.get(name)
        if node is None:
            rows.append(node_row(at, True, index, index, 0, b""))
            size += len(at)
        elif node.children is None:
            raise V2Error(Code.NOT_DIR, at, tree.index)
    if size > _MOST_MADE_BYTES:
        raise V2Error(Code.RAFT_INTERNAL, errors.REQUEST_TOO_LARGE.text)
    there = None if node is None or node.children is None else node.children.get(last)
    if there is not None and action == Action.CREATE:
        raise V2Error(Code.NODE_EXIST, path, tree.index)
    if there is not None and there.children is not None:
        raise V2Error(Code.NOT_FILE, path, tree.index)
    expires_ns = _expires(write)
    value = b"" if write.directory else value
    rows.append(node_row(path, write.directory, index, index, expires_ns, value))
    shown = Shown(path, write.directory, None if write.directory else value, expires_ns, index, index)
    prev = None if before is None else _shown(before)
    return Event(action, shown, prev, write.now_ns, action == Action.SET and write.refresh), rows


def _update(tree: Tree, write: Write) -> _Done:
    _not_root(tree, write.path)
    node = tree.find(write.path)
    index = tree.index + 1
    directory = node.children is not None
    if directory and write.value:
        raise V2Error(Code.NOT_FILE, write.path, tree.index)
    value = node.value if write.refresh else write.value
    # etcd does not keep the index at which a directory was changed, though it shows it
    kept = node.modified if directory else index
    rows = [node_row(node.key, directory, node.created, kept, write.expires_ns, value)]
    shown = Shown(node.key, directory, None if directory else value, write.expires_ns, index, node.created)
    return Event(Action.UPDATE, shown, _shown(node), write.now_ns, write.refresh), rows


def _file(tree: Tree, write: Write) -> Node:
    """The file that a comparison is of, if the comparison holds."""
    node = tree.find(write.path)
    if node.children is not None:
        raise V2Error(Code.NOT_FILE, write.path, tree.index)
    wrong_value = bool(write.prev_value) and node.value != write.prev_value
    wrong_index = bool(write.prev_index) and node.modified != write.prev_index
    causes = []
    if wrong_value:
        causes.append(b"[%b != %b]" % (write.prev_value, node.value))
    if wrong_index:
        causes.append(b"[%d != %d]" % (write.prev_index, node.modified))
    if causes:
        raise V2Error(Code.TEST_FAILED, b" ".join(causes), tree.index)
    return node


def _compare_and_swap(tree: Tree, write: Write) -> _Done:
    _not_root(tree, write.path)
    node = _file(tree, write)
    index = tree.index + 1
    value = node.value if write.refresh else write.value
    rows = [node_row(node.key, False, node.created, index, write.expires_ns, value)]
    shown = Shown(node.key, False, value, write.expires_ns, index, node.created)
    return Event(Action.COMPARE_AND_SWAP, shown, _shown(node), write.now_ns, write.refresh), rows


def _delete(tree: Tree, write: Write) -> _Done:
    _not_root(tree, write.path)
    node = tree.find(write.path)
    if node.children is not None:
        if not write.directory and not write.recursive:
            raise V2Error(Code.NOT_FILE, write.path, tree.index)
        if node.children and not write.recursive:
            raise V2Error(Code.DIR_NOT_EMPTY, write.path, tree.index)
    return Event(Action.DELETE, _gone(node, tree.index + 1), _shown(node), write.now_ns), _removed(node)


def _compare_and_delete(tree: Tree, write: Write) -> _Done:
    node = _file(tree, write)
    shown = _gone(node, tree.index + 1)
    return Event(Action.COMPARE_AND_DELETE, shown, _shown(node), write.now_ns), _removed(node)


_EVALUATE: dict[Op, Callable[[Tree, Write], _Done]] = {
    Op.SET: _set,
    Op.CREATE: _create,
    Op.UPDATE: _update,
    Op.COMPARE_AND_SWAP: _compare_and_swap,
    Op.CREATE_IN_ORDER: _create_in_order,
    Op.DELETE: _delete,
    Op.COMPARE_AND_DELETE: _compare_and_delete,
}

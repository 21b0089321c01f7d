"""The JSON that clients read, as etcd writes it: its order of fields, its escapes, its ends of lines. Where
there is ``left``, long values are left to be quoted in steps (:func:`in_steps`)."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from heapq import merge
from itertools import chain, filterfalse
from operator import attrgetter

from cluster.features.v2.events import NAMES, Event, Shown
from cluster.features.v2.text import in_steps, moment, quoted, quoted_or_left, seconds_left
from cluster.features.v2.tree import Node


def event_json(event: Event, prefix: bytes, left: list[bytes] | None = None) -> bytes:
    """An event. ``prefix``: the namespace, which no client sees."""
    node = _shown(event.node, prefix, event.at_ns, left)
    prev = "" if event.prev is None else f',"prevNode":{_shown(event.prev, prefix, event.at_ns, left)}'
    return f'{{"action":"{NAMES[event.action]}","node":{node}{prev}}}\n'.encode()


def set_json(
    path: bytes, value: bytes, index: int, expires_ns: int, before: Node | None, prefix: bytes, now_ns: int,
    left: list[bytes],
) -> bytes:
    """The event of a file that is set, without an ``Event``."""
    node = _closed(_first(path, value, False, expires_ns, prefix, now_ns, left), index, index)
    prev = ""
    if before is not None:
        fields = _first(path, before.value, False, before.expires_ns, prefix, now_ns, left)
        prev = f',"prevNode":{_closed(fields, before.modified, before.created)}'
    return f'{{"action":"set","node":{node}{prev}}}\n'.encode()


def short_json(action: int) -> bytes:
    """An answer without its nodes (``noValueOnSuccess``)."""
    return f'{{"action":"{NAMES[action]}"}}\n'.encode()


def _shown(node: Shown, prefix: bytes, now_ns: int, left: list[bytes] | None) -> str:
    fields = _first(node.key, node.value, node.directory, node.expires_ns, prefix, now_ns, left)
    return _closed(fields, node.modified, node.created)


def _first(
    key: bytes, value: bytes | None, directory: bool, expires_ns: int, prefix: bytes, now_ns: int,
    left: list[bytes] | None = None,
) -> str:
    key = key.removeprefix(prefix)
    fields = f'"key":{quoted(key)},' if key else ""
    if value is not None:
        fields += f'"value":{quoted_or_left(value, left)},'
    if directory:
        fields += '"dir":true,'
    if expires_ns:
        ttl = seconds_left(expires_ns, now_ns)
        fields += f'"expiration":"{moment(expires_ns)}",'
        if ttl:
            fields += f'"ttl":{ttl},'
    return fields


def _closed(fields: str, modified: int, created: int) -> str:
    if modified:
        fields += f'"modifiedIndex":{modified},'
    if created:
        fields += f'"createdIndex":{created},'
    return f"{{{fields[:-1]}}}"


class LatelyShown:
    """Cached answers to reads of files. A change puts another node in the place of a file, so a cached answer
    stays true. At the limit the cache is emptied."""

    def __init__(self, limit_bytes: int = 8 << 20) -> None:
        self._limit_bytes = limit_bytes
        self._made: dict[Node, bytes] = {}
        self._bytes = 0
        self.get = self._made.get

    def keep(self, node: Node, made: bytes) -> None:
        """The answer for a file without a TTL."""
        size = 2 * len(made) + _KEPT_BYTES
        if size > self._limit_bytes >> 4:
            return
        self._bytes += size
        if self._bytes > self._limit_bytes:
            self._made.clear()
            self._bytes = size
        self._made[node] = made


class Listing:
    """A read of a node and of what a directory holds, as they are now, shown in steps. ``size``: in nodes; a
    long value counts like many, unless there are many nodes."""

    def __init__(self, node: Node, prefix: bytes, recursive: bool, in_order: bool, now_ns: int) -> None:
        self._node = node
        self._prefix = prefix
        self._in_order = in_order
        self._now_ns = now_ns
        self._lists: dict[Node, list[Node]] = {}  # by directory; a change puts another node there
        self.size = 1 + len(node.value) // _VALUE_BYTES
        left = [node]
        while left:
            some = left.pop()
            children = list((some.children or {}).values())
            self._lists[some] = children
            self.size += len(children)
            if self.size <= _FEW:
                self.size += sum([len(child.value) for child in children]) // _VALUE_BYTES
            if recursive:
                left += [child for child in children if child.children]

    def parts(self, step: int) -> Iterator[str]:
        """The text of the answer; an empty part after each ``step`` of the size."""
        prefix, now_ns = self._prefix, self._now_ns
        yield '{"action":"get","node":'
        # the directories that are open: which children are left, what closes it
        left: list[tuple[Iterator[Node], str]] = [(iter((self._node,)), "}\n")]
        comma = ""
        count = 0
        while left:
            some = next(left[-1][0], None)
            if some is None:
                yield left.pop()[1]
                comma = ","
                continue
            count += 1 + len(some.value) // _VALUE_BYTES
            if count >= step:
                count = 0
                yield ""
            directory = some.children is not None
            value = None if directory else some.value
            long: list[bytes] = []
            fields = _first(some.key, value, directory, some.expires_ns, prefix, now_ns, long)
            shown = (yield from self._children(some)) if some in self._lists else iter(())
            first = next(shown, None)
            if first is not None:
                yield f'{comma}{{{fields}"nodes":['
                rest = _closed("", some.modified, some.created)
                left.append((chain((first,), shown), "]}" if rest == "{}" else f"],{rest[1:]}"))
                comma = ""
                continue
            closed = comma + _closed(fields, some.modified, some.created)
            comma = ","
            if not long:
                yield closed
                continue
            for part in in_steps(closed.encode(), long):
                yield part.decode()
                yield ""

    def _children(self, directory: Node) -> Generator[str, None, Iterator[Node]]:
        """Those that are shown; an empty part after each run of many that are sorted."""
        children = self._lists[directory]
        if not self._in_order:
            return filterfalse(_hidden, children)
        runs = []
        for at in range(0, len(children), _RUN):
            runs.append(sorted(filterfalse(_hidden, children[at : at + _RUN]), key=_key))
            if len(children) > _RUN:
                yield ""
        return merge(*runs, key=_key) if len(runs) > 1 else iter(runs[0] if runs else ())


def get_json(node: Node, prefix: bytes, recursive: bool, in_order: bool, now_ns: int,
             left: list[bytes] | None = None) -> bytes:
    """The answer to a read, at once."""
    if node.children is None:
        fields = _first(node.key, node.value, False, node.expires_ns, prefix, now_ns, left)
        return f'{{"action":"get","node":{_closed(fields, node.modified, node.created)}}}\n'.encode()
    return "".join(Listing(node, prefix, recursive, in_order, now_ns).parts(1 << 62)).encode()


_key, _hidden = attrgetter("key"), attrgetter("hidden")
_RUN = 1000  # children that are sorted in a step: 1 ms
_KEPT_BYTES = 200  # of a node and its entry, beside its text
_FEW = 1000  # nodes, whose values count
_VALUE_BYTES = 512  # of values take as long as one more node

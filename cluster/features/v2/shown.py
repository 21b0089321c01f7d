"""The JSON that clients read, as etcd writes it: its order of fields, its escapes, its ends of lines."""

from __future__ import annotations

from cluster.features.v2.events import NAMES, Action, Event, Shown
from cluster.features.v2.text import moment, quoted, seconds_left
from cluster.features.v2.tree import Node


def event_json(event: Event, prefix: bytes) -> bytes:
    """An event. ``prefix``: the namespace, which no client sees."""
    node = _shown(event.node, prefix, event.at_ns)
    prev = "" if event.prev is None else f',"prevNode":{_shown(event.prev, prefix, event.at_ns)}'
    return f'{{"action":"{NAMES[event.action]}","node":{node}{prev}}}\n'.encode()


def short_json(action: int) -> bytes:
    """An answer without its nodes (``noValueOnSuccess``)."""
    return f'{{"action":"{NAMES[Action(action)]}"}}\n'.encode()


def _shown(node: Shown, prefix: bytes, now_ns: int) -> str:
    fields = _first(node.key, node.value, node.directory, node.expires_ns, prefix, now_ns)
    return _closed(fields, node.modified, node.created)


def _first(
    key: bytes, value: bytes | None, directory: bool, expires_ns: int, prefix: bytes, now_ns: int
) -> str:
    key = key.removeprefix(prefix)
    fields = f'"key":{quoted(key)},' if key else ""
    if value is not None:
        fields += f'"value":{quoted(value)},'
    if directory:
        fields += '"dir":true,'
    if expires_ns:
        left = seconds_left(expires_ns, now_ns)
        fields += f'"expiration":"{moment(expires_ns)}",'
        if left:
            fields += f'"ttl":{left},'
    return fields


def _closed(fields: str, modified: int, created: int) -> str:
    if modified:
        fields += f'"modifiedIndex":{modified},'
    if created:
        fields += f'"createdIndex":{created},'
    return f"{{{fields[:-1]}}}"


def get_json(node: Node, prefix: bytes, recursive: bool, in_order: bool, now_ns: int) -> bytes:
    """The answer to a read: a node, and what a directory holds."""
    parts = ['{"action":"get","node":']
    left: list[Node | str] = [node]  # what is still to be shown, the next one last
    listed = True
    while left:
        some = left.pop()
        if isinstance(some, str):
            parts.append(some)
            continue
        children = some.children
        value = some.value if children is None else None
        fields = _first(some.key, value, children is not None, some.expires_ns, prefix, now_ns)
        shown = [child for child in children.values() if not child.hidden] if children and listed else []
        listed = recursive
        if not shown:
            parts.append(_closed(fields, some.modified, some.created))
            continue
        shown.sort(key=lambda child: child.key, reverse=True) if in_order else shown.reverse()
        parts.append(f'{{{fields}"nodes":[')
        rest = _closed("", some.modified, some.created)
        left.append("]}" if rest == "{}" else f"],{rest[1:]}")
        for at, child in enumerate(shown):
            if at:
                left.append(",")
            left.append(child)
    parts.append("}\n")
    return "".join(parts).encode()

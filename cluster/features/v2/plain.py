"""The set that nearly all are: of a file, in an existing directory, compared with nothing.

Hot path: such a request is recognised by its first bytes, and its rows and answer are what ``changes`` gives
(``tests/unit/v2/tree/test_plain.py``). The sets of one turn are one item of the log, with one row of the
counters (decision 93).
"""

from __future__ import annotations

import struct

from cluster.features.rows import Row
from cluster.features.v2.changes import LONG_PAST_NS
from cluster.features.v2.events import HEAD, LENGTH, PREV, Action
from cluster.features.v2.requests import ANSWER, PLAIN_SET, Answer, left_to_front
from cluster.features.v2.shown import set_json
from cluster.features.v2.text import LONG_BYTES, clear, quoted_bytes
from cluster.features.v2.tree import KEYS, Node, SetRows, Tree, event_row, file_row, node_row
from cluster.features.v2.users import enabled

_REST = struct.Struct("<qqII")  # behind PLAIN_SET: expires, now, lengths of path and previous value
_HEAD = len(PLAIN_SET) + _REST.size
_ODD = frozenset((b"", b".", b".."))
_SET = int(Action.SET)
_pack_answer, _unpack_rest = ANSWER.pack, _REST.unpack_from
_BELOW = KEYS + b"/"


def plain_set(tree: Tree, body: bytes, rows: list[Row]) -> bytes | None:
    """Do such a set: the answer. The tree has taken it; its rows but the counters' are appended to ``rows``.
    None: it is none, and nothing was done."""
    if not body.startswith(PLAIN_SET) or len(body) <= _HEAD:
        return None
    expires_ns, now_ns, path_length, prev_length = _unpack_rest(body, len(PLAIN_SET))
    at = _HEAD + path_length
    if prev_length or at > len(body) or (expires_ns and expires_ns < LONG_PAST_NS):
        return None
    path = body[_HEAD:at]
    above, _, name = path.rpartition(b"/")
    children = tree.children_of(above) if name not in _ODD and path.startswith(_BELOW) else None
    if children is None or tree.full or enabled(tree):
        return None
    before = children.get(name)
    if before is not None and (before.children is not None or not (before.modified and before.created)):
        return None
    value = body[at:]
    index = tree.index + 1
    event = _event(index, now_ns, path, value, expires_ns, before)
    if expires_ns or (before is not None and before.expires_ns):
        row = node_row(path, False, index, index, expires_ns, value)
        rows += row, event_row(index, event)
        tree.set_until(path, row)
        tree.set_done(index, len(event))
        return _by_json(path, value, index, expires_ns, before, now_ns)
    rows.append(file_row(path, index, value))
    rows.append(event_row(index, event))
    node = children[name] = Node(path, False, index, index, 0, value)
    if isinstance(rows, SetRows):
        rows.files.append(node)
    tree.set_done(index, len(event))
    return _answer(node, before)


def _event(index: int, at_ns: int, key: bytes, value: bytes, expires_ns: int, prev: Node | None) -> bytes:
    """As ``Event.encode``, of a file that was set at this index, and the one before it."""
    if prev is None:
        head = HEAD.pack(index, _SET, 0, at_ns, index, expires_ns, 0, 0, 0, len(key))
        return b"".join((head, key, LENGTH.pack(len(value)), value))
    head = HEAD.pack(index, _SET, PREV, at_ns, index, expires_ns, prev.expires_ns, prev.modified,
                     prev.created, len(key))  # fmt: skip
    return b"".join((head, key, LENGTH.pack(len(value)), value, prev.value))


def _by_json(path: bytes, value: bytes, index: int, expires_ns: int, before: Node | None,
             now_ns: int) -> bytes:
    left: list[bytes] = []
    text = set_json(path, value, index, expires_ns, before, KEYS, now_ns, left)
    if not left:
        return _pack_answer(index, 0, 0, _SET, before is None) + text
    return left_to_front(Answer(index, text, 0, _SET, before is None), left).encode()


def _answer(node: Node, before: Node | None) -> bytes:
    """That ``node`` was set in the place of ``before``."""
    key, value, index = node.key[len(KEYS) :], node.value, node.modified
    if before is not None and before.clear:  # the key is that of this node
        node.clear = clear(value)
        if node.clear:
            return _pack_answer(index, 0, 0, _SET, False) + (
                b'{"action":"set","node":{"key":"%b","value":"%b","modifiedIndex":%d,"createdIndex":%d},'
                b'"prevNode":{"key":"%b","value":"%b","modifiedIndex":%d,"createdIndex":%d}}\n'
                % (key, value, index, index, key, before.value, before.modified, before.created)
            )
    else:
        node.clear = clear(value) and clear(node.key)
    if len(value) > LONG_BYTES or (before is not None and len(before.value) > LONG_BYTES):
        return _by_json(node.key, value, index, 0, before, 0)
    key, text = quoted_bytes(key), quoted_bytes(value)
    if before is None:
        return _pack_answer(index, 0, 0, _SET, True) + (
            b'{"action":"set","node":{"key":%b,"value":%b,"modifiedIndex":%d,"createdIndex":%d}}\n'
            % (key, text, index, index)
        )
    return _pack_answer(index, 0, 0, _SET, False) + (
        b'{"action":"set","node":{"key":%b,"value":%b,"modifiedIndex":%d,"createdIndex":%d},'
        b'"prevNode":{"key":%b,"value":%b,"modifiedIndex":%d,"createdIndex":%d}}\n'
        % (key, text, index, index, key, quoted_bytes(before.value), before.modified, before.created)
    )

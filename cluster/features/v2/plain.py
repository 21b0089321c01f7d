"""The set that nearly all are: of a file, in a directory that is there, compared with nothing.

Hot path. Such a request is told by its first bytes, and becomes no object: its rows and its answer are what
``changes`` comes to, of which this is a short cut (``tests/unit/v2/tree/test_plain.py``). Those that come in
one turn are one item of the log, with one row of the counters (decision 93).
"""

from __future__ import annotations

import struct

from cluster.features.rows import Row
from cluster.features.v2.changes import LONG_PAST_NS
from cluster.features.v2.events import Action, plain_event
from cluster.features.v2.requests import ANSWER, PLAIN_SET
from cluster.features.v2.shown import set_json
from cluster.features.v2.text import clear, quoted_bytes
from cluster.features.v2.tree import KEYS, Node, SetRows, Tree, event_row, file_row, node_row
from cluster.features.v2.users import enabled

_REST = struct.Struct("<qqII")  # behind PLAIN_SET: expires, now, lengths of path and previous value
_HEAD = len(PLAIN_SET) + _REST.size
_ODD = frozenset((b"", b".", b".."))
_SET = int(Action.SET)
_pack_answer, _unpack_rest = ANSWER.pack, _REST.unpack_from
_BELOW = KEYS + b"/"


def plain_set(tree: Tree, body: bytes, rows: list[Row]) -> bytes | None:
    """Do such a set: the answer; the tree has taken it, its rows but the counters' are behind ``rows``. None:
    it is none, and nothing was done."""
    if not body.startswith(PLAIN_SET) or len(body) <= _HEAD:
        return None
    expires_ns, now_ns, path_length, prev_length = _unpack_rest(body, len(PLAIN_SET))
    at = _HEAD + path_length
    if prev_length or at > len(body) or (expires_ns and expires_ns < LONG_PAST_NS):
        return None
    path = body[_HEAD:at]
    above, slash, name = path.rpartition(b"/")
    children = tree.children_of(above) if slash and name not in _ODD and path.startswith(_BELOW) else None
    if children is None or tree.full or enabled(tree):
        return None
    before = children.get(name)
    if before is not None and (before.children is not None or not (before.modified and before.created)):
        return None
    value = body[at:]
    index = tree.index + 1
    event = plain_event(index, _SET, now_ns, path, value, expires_ns, before)
    if expires_ns or (before is not None and before.expires_ns):
        row = node_row(path, False, index, index, expires_ns, value)
        rows += row, event_row(index, event)
        tree.set_until(path, row)
        tree.set_done(index, len(event))
        text = set_json(path, value, index, expires_ns, before, KEYS, now_ns)
        return _pack_answer(index, 0, 0, _SET, before is None) + text
    rows.append(file_row(path, index, value))
    rows.append(event_row(index, event))
    node = children[name] = Node(path, False, index, index, 0, value)
    if isinstance(rows, SetRows):
        rows.files.append(node)
    tree.set_done(index, len(event))
    key = path[len(KEYS) :]
    if before is not None and before.clear:  # the key is that of this one
        node.clear = clear(value)
        if node.clear:
            return _pack_answer(index, 0, 0, _SET, False) + (
                b'{"action":"set","node":{"key":"%b","value":"%b","modifiedIndex":%d,"createdIndex":%d},'
                b'"prevNode":{"key":"%b","value":"%b","modifiedIndex":%d,"createdIndex":%d}}\n'
                % (key, value, index, index, key, before.value, before.modified, before.created)
            )
    else:
        node.clear = clear(value) and clear(path)
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

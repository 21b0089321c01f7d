"""When the nodes of the v2 tree whose time is over go (node.serving.v2)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from cluster.features.v2.changes import evaluate
from cluster.features.v2.requests import Op, Write
from cluster.features.v2.tree import KEYS, Tree
from node.serving.v2 import V2Tree
from tests.unit.v2.tree.random_writes import NOW_NS, S

KEYS_IN_ALL = 3000


def test_an_entry_that_cannot_leave_does_not_grow_by_what_ends_meanwhile() -> None:
    rows = []
    tree = Tree(keep_events=False)
    for number in range(KEYS_IN_ALL):
        write = Write(Op.SET, KEYS + b"/k%d" % number, b"x", expires_ns=NOW_NS + S, now_ns=NOW_NS)
        rows.append(evaluate(tree, write).rows)
        tree.take(rows[-1])
    items: list[bytes] = []
    leader: Any = SimpleNamespace(v2=tree, append=items.append, dirty=False)
    node: Any = SimpleNamespace(
        store=SimpleNamespace(feature_rows=lambda _: [row for some in rows for row in some]),
        writes=SimpleNamespace(leader=leader, has_room=False),
        machine=SimpleNamespace(wall_time=lambda: NOW_NS / 1e9 + 2),
        loop=SimpleNamespace(time=lambda: 0.0),
        wake=lambda: None,
    )
    ending = V2Tree(node)
    for _ in range(5):
        ending.look()
        leader.dirty = bool(items)
    assert len(items) == 1
    node.writes.has_room = True
    while tree.next_expiry_ns:
        ending.look()
    assert len(items) == 3

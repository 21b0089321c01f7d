"""When the nodes of the v2 tree whose time is over go (node.serving.v2)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.features.v2.changes import evaluate
from cluster.features.v2.requests import Op, Write
from cluster.features.v2.tree import KEYS, Tree
from cluster.wire.messages import Method
from node.serving.v2 import V2Tree
from node.storage import StateStore
from tests.unit.node.replica.test_writes import Replica
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
        writes=SimpleNamespace(leader=leader, has_room=False, begun=lambda: lambda: True),
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


class Busy:
    """A leader whose requests gather while an entry is under way, and its heartbeats."""

    def __init__(self, store: StateStore) -> None:
        self.now_s = 0.0
        self.replica = Replica(store, full_requests=256)
        self.replica.lead(1)
        node: Any = SimpleNamespace(
            store=store,
            writes=self.replica.writes,
            machine=SimpleNamespace(wall_time=lambda: NOW_NS / 1e9 + self.now_s),
            loop=SimpleNamespace(time=lambda: 0.0),
            wake=self.replica.writes.run,
        )
        self.v2 = V2Tree(node)
        self.applied = self.replica.raft.last

    def set(self, key: bytes, seconds: int, *, refresh: bool = False) -> None:
        until_ns = NOW_NS + seconds * S
        write = Write(Op.SET, KEYS + key, b"", expires_ns=until_ns, now_ns=NOW_NS, refresh=refresh)
        self.replica.writes.submit(self.replica.link, 1, Method.V2_WRITE, write.encode())
        self.replica.writes.run()

    def apply(self) -> None:
        """The entry that is under way, behind which the next one leaves."""
        self.applied += 1
        term, data = self.replica.raft.entries[self.applied]
        self.v2.applied(self.replica.store.apply([(self.applied, term, data)]).rows)
        self.replica.writes.applied(self.applied, term)
        self.replica.writes.run()

    def apply_all(self) -> None:
        while self.applied < self.replica.raft.last:
            self.apply()

    def heartbeat(self, at_s: float) -> None:
        self.now_s = at_s
        self.v2.look()

    @property
    def keys(self) -> list[bytes]:
        return sorted(self.v2.tree.find(KEYS).children or {})


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Busy]:
    store = StateStore.open(f"{tmp_path}/state")
    yield Busy(store)
    store.close()


def test_what_is_renewed_in_time_stays_though_an_entry_is_under_way_at_its_end(busy: Busy) -> None:
    """A large one, or a slow disk. A service would be gone that had said in time that it is there."""
    busy.set(b"/service", 1)
    busy.apply()
    busy.replica.put(1)
    busy.set(b"/service", 30, refresh=True)
    for at_s in (2.0, 2.1, 3.0):
        busy.heartbeat(at_s)
    busy.apply_all()
    busy.heartbeat(3.1)
    busy.apply_all()
    assert len(busy.keys) == 1
    busy.heartbeat(31.0)
    busy.apply_all()
    assert busy.keys == []


def test_nodes_end_though_requests_always_wait(busy: Busy) -> None:
    busy.set(b"/service", 1)
    busy.apply()
    busy.replica.put(1)
    for number in range(2, 6):
        busy.replica.put(number)
        busy.heartbeat(1.0 + number)
        busy.apply()
        assert busy.replica.writes.uncommitted
    busy.apply_all()
    assert busy.keys == []


def test_what_ends_while_others_wait_for_their_end_may_still_be_renewed(busy: Busy) -> None:
    busy.set(b"/first", 1)
    busy.set(b"/second", 3)
    busy.apply_all()
    busy.replica.put(1)
    busy.replica.put(2)
    busy.heartbeat(2.0)
    busy.apply()
    busy.set(b"/second", 30, refresh=True)
    busy.heartbeat(4.0)
    busy.apply_all()
    assert len(busy.keys) == 1

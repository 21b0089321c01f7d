"""A host's attributes are logged once, however often they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.effects import records
from cluster.pb import rpc_pb2 as pb
from cluster.settings import Common, NodeSettings
from cluster.wire.frames import PeerKind
from cluster.wire.messages import Method
from node.storage import StateStore
from node.upkeep.group.publishing import Publishing


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    store = StateStore.open(tmp_path)
    yield store
    store.close()


class Host:
    """Host 1, of which member 2 leads unless it does so itself."""

    def __init__(self, store: StateStore, shard: int = 0, leads: bool = False) -> None:
        self.logged: list[tuple[int, bytes]] = []
        self.sent: list[tuple[int, bytes, bytes]] = []
        leader = SimpleNamespace(execute=lambda *request: self.logged.append(request)) if leads else None
        self.raft: Any = SimpleNamespace(leader_id=1 if leads else 2)
        node: Any = SimpleNamespace(
            writes=SimpleNamespace(leader=leader),
            peers=SimpleNamespace(send=lambda *frame: self.sent.append(frame)))
        settings = NodeSettings(
            Common(1, 1, "h1", 2, 1, (), "/nowhere"), shard, "/nowhere", "h", 1, client_urls=("http://h:1",))
        self.publishing = Publishing(node, settings, store, self.raft)


def test_a_leader_logs_its_own_attributes_until_they_are_applied(store: StateStore) -> None:
    host = Host(store, leads=True)
    host.publishing.publish()
    ((method, member),) = host.logged
    assert method == Method.PUBLISH
    assert pb.Member.FromString(member) == pb.Member(ID=1, name="h1", clientURLs=["http://h:1"])
    assert not host.publishing.done()
    store.apply([(1, 1, records.publish(member))])
    assert host.publishing.done()
    host.publishing.publish()
    host.publishing.asked(member)
    assert len(host.logged) == 1


def test_others_ask_the_leader_as_soon_as_there_is_one(store: StateStore) -> None:
    host, leader = Host(store), Host(store, leads=True)
    host.raft.leader_id = 0
    host.publishing.publish()
    assert host.sent == []
    host.raft.leader_id = 2
    host.publishing.publish()
    ((member_id, kind, member),) = host.sent
    assert (member_id, kind) == (2, PeerKind.PUBLISH.byte)
    host.publishing.asked(member)
    assert host.logged == [], "it leads no more"
    leader.publishing.asked(member)
    assert leader.logged == [(Method.PUBLISH, member)]


def test_other_shards_publish_nothing(store: StateStore) -> None:
    host = Host(store, shard=1, leads=True)
    assert host.publishing.done()
    host.publishing.publish()
    assert host.logged == []

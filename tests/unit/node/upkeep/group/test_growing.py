"""What hosts speak is said in the order, in a form that older hosts keep; then the data may grow (G16)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.effects import records
from cluster.errors import EtcdError
from cluster.evaluate.replica import Copies, Leader
from cluster.features import growth
from cluster.features.growth import OWN, Spoken
from cluster.features.lessor import Lessor
from cluster.features.moves import Room
from cluster.features.rows import RowsOf, encode
from cluster.features.v2.tree import Tree
from cluster.members.table import Host as Member
from cluster.pb import shards_pb2
from cluster.settings import Common, NodeSettings
from cluster.wire.frames import GROWTH_SINCE, PeerKind
from cluster.wire.messages import Method
from node.storage import StateStore
from node.upkeep.group.growing import Growing

LAYOUT = 2, 1  # shards and depth


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    store = StateStore.open(tmp_path)
    store.apply([(1, 1, records.bootstrap(1, *LAYOUT))])
    yield store
    store.close()


class Host:
    """Host 1 of three, of which member 2 leads unless it does so itself."""

    def __init__(self, store: StateStore, *, leads: bool = False, shard: int = 0) -> None:
        self.store = store
        self.sent: list[tuple[int, bytes, bytes]] = []
        self.refused: list[int] = []
        self.failed: list[str] = []
        self.told: list[tuple[str, dict[str, object]]] = []
        self.versions = {2: 10, 3: 10}
        self.hosts = {i: Member(i, f"h{i}", ("http://h:1",)) for i in (1, 2, 3)}
        self.leader = Leader(
            store, 1, max_txn_ops=128, lessor=Lessor(1000), new_lease_id=lambda: 7,
            copies=Copies(Tree, lambda: self.growing.told())) if leads else None
        node: Any = SimpleNamespace(
            writes=SimpleNamespace(leader=self.leader), fail=self.failed.append,
            peers=SimpleNamespace(send=lambda *frame: self.sent.append(frame), versions=self.versions,
                                  linked=self.versions.copy, refuse_below=self.refused.append),
            fronts=SimpleNamespace(refuse_below=self.refused.append),
            roster=SimpleNamespace(others=[2, 3], table=SimpleNamespace(
                members=list(self.hosts.values()), hosts=self.hosts)))
        settings = NodeSettings(Common(1, 1, "h1", *LAYOUT, (), "/nowhere"), shard, "/nowhere", "h", 1)
        raft: Any = SimpleNamespace(leader_id=1 if leads else 2)
        status: Any = SimpleNamespace(say=lambda event, **facts: self.told.append((event, facts)))
        self.room = Room()
        self.growing = Growing(node, settings, store, raft, status, lambda: self.room)

    def sealed(self) -> bytes:
        assert self.leader is not None
        return self.leader.seal()[0]

    def apply(self, *items: bytes) -> None:
        index = self.store.position.order_index + 1
        self.growing.applied(self.store.apply([(index, 1, b"".join(items))]))


def said(*members: int, spoken: Spoken = OWN) -> bytes:
    return records.rows(encode(RowsOf.VERSIONS, [growth.row(i, spoken.encode()) for i in members]))


def test_a_leader_logs_what_its_own_program_speaks_once(store: StateStore) -> None:
    host = Host(store, leads=True)
    host.growing.say()
    host.growing.say()
    assert host.sealed() == said(1)
    host.apply(said(1))
    host.growing.say()
    assert host.sealed() == b""


def test_a_follower_says_it_to_a_leader_that_knows_of_it_until_it_is_applied(store: StateStore) -> None:
    host = Host(store)
    host.versions[2] = 9
    host.growing.say()
    assert not host.sent
    host.versions[2] = 10
    host.growing.say()
    assert host.sent == [(2, PeerKind.SPEAKS.byte, OWN.encode())]
    host.apply(said(1))
    host.growing.say()
    assert len(host.sent) == 1


@pytest.mark.parametrize("leads", [True, False])
@pytest.mark.parametrize(("applied", "says"), [((), False), ((3, 1), False), ((2, 2), False), (LAYOUT, True)])
def test_a_host_that_has_not_taken_the_layout_says_nothing(
    tmp_path: Path, leads: bool, applied: tuple[int, ...], says: bool
) -> None:
    """It may have nodes to empty yet. No shard is born whose votes these have given (H10)."""
    store = StateStore.open(tmp_path)
    if applied:
        store.apply([(1, 1, records.bootstrap(1, *applied))])
    host = Host(store, leads=leads)
    host.growing.say()
    assert bool(host.sealed() if leads else host.sent) == says
    store.close()


def test_nodes_of_other_shards_say_nothing(store: StateStore) -> None:
    host = Host(store, shard=1)
    host.growing.say()
    assert not host.sent


@pytest.mark.parametrize(("version", "logs"), [(7, False), (8, True)])
def test_rows_wait_for_hosts_that_they_would_end(store: StateStore, version: int, logs: bool) -> None:
    host = Host(store, leads=True)
    host.versions[3] = version
    host.growing.asked(2, OWN.encode())
    assert bool(host.sealed()) == logs


def test_a_host_that_is_away_keeps_rows_if_it_has_said_so_before(store: StateStore) -> None:
    host = Host(store, leads=True)
    del host.versions[3]
    host.apply(said(3))
    host.growing.asked(2, OWN.encode())
    assert host.sealed() == said(2)


def test_what_makes_no_sense_is_not_logged(store: StateStore) -> None:
    host = Host(store, leads=True)
    for broken in (b"", OWN.encode()[:-1], OWN.encode()[:6] + b"\xff"):
        with pytest.raises(ValueError, match="cut short"):
            host.growing.asked(2, broken)
    assert Spoken.decode(OWN.encode() + b"of a later release") == OWN


@pytest.mark.parametrize(
    "version", ["1.0-\u00fc".encode(), b"1.0\xff" * 16, "\u20ac".encode() * 21 + b"\xe2"],
    ids=("two", "none", "cut"))
def test_a_version_that_is_no_ascii_is_logged_once(store: StateStore, version: bytes) -> None:
    host = Host(store, leads=True)
    said_by_peer = OWN.encode()[:6] + bytes((len(version),)) + version
    host.growing.asked(2, said_by_peer)
    host.apply(host.sealed())
    host.growing.asked(2, said_by_peer)
    assert host.sealed() == b"", "at each heartbeat"
    known = host.growing.growth.spoken[2]
    assert known == Spoken.decode(known.encode())
    assert known.level == growth.LEVEL
    assert len(Spoken(version="\u20ac" * 64).encode()) == 7 + 64


def test_data_grows_once_all_members_have_said_that_they_know_it(store: StateStore) -> None:
    host = Host(store, leads=True)
    leader = host.leader
    assert leader is not None
    host.apply(said(1, 2), said(3, spoken=Spoken(0, 7, 9, "old")))
    with pytest.raises(EtcdError, match="h3 have not said that they know data of level 3"):
        leader.execute(Method.GROW, b"")
    host.growing.asked(3, OWN.encode())  # logged, and not applied yet
    answer = leader.execute(Method.GROW, b"")
    assert shards_pb2.EnableGrowthResponse.FromString(answer.tail).level == 3
    assert leader.execute(Method.GROW, b"").items == b"", "it is there already"
    record = host.sealed()
    assert record == said(3) + growth.item(3, (1, 2, 3))
    host.apply(record)
    assert host.growing.growth.level == 3
    assert host.refused == [GROWTH_SINCE] * 2
    assert host.told == [("grown", {"level": 3})], "the host's files are to name it"
    again = Host(store)
    assert again.growing.growth.level == 3, "after a restart"
    again.growing.look()
    assert again.told == host.told, "a crash came before that"


def test_a_member_that_is_added_meanwhile_is_waited_for(store: StateStore) -> None:
    host = Host(store, leads=True)
    assert host.leader is not None
    host.apply(said(1, 2, 3))
    host.leader.append_host(Member(4, "", ("http://h:4",)).encode())
    with pytest.raises(EtcdError, match="muster: 4 have not said"):
        host.leader.execute(Method.GROW, b"")
    host.leader.append_host(Member(4, "", ("http://h:4",), removed=True).encode())
    assert host.leader.execute(Method.GROW, b"").items


def test_a_host_that_went_back_to_an_older_version_is_waited_for(store: StateStore) -> None:
    host = Host(store, leads=True)
    assert host.leader is not None
    host.apply(said(1, 2, 3))
    host.versions[2] = 9  # its row outlives the rollback
    del host.versions[3]
    told = re.escape("not known to run a version that knows data of level 3 now: "
                     "h2 (speaks version 9), h3 (not connected); start that version there first")
    with pytest.raises(EtcdError, match=told):
        host.leader.execute(Method.GROW, b"")
    host.versions |= {2: 10, 3: 10}
    assert host.leader.execute(Method.GROW, b"").items
    host.versions.clear()
    assert host.leader.execute(Method.GROW, b"").items == b"", "what is there already is granted again"


def test_a_leader_refuses_levels_that_it_does_not_know(store: StateStore) -> None:
    host = Host(store, leads=True)
    assert host.leader is not None
    with pytest.raises(EtcdError, match="knows no data of level 9, and none above 3"):
        host.leader.execute(Method.GROW, shards_pb2.EnableGrowthRequest(level=9).SerializeToString())


def test_growth_that_a_member_never_said_is_a_broken_invariant(store: StateStore) -> None:
    host = Host(store)
    with pytest.raises(AssertionError, match="G16"):
        host.apply(said(1, 3), growth.item(1, (1, 2, 3)), said(2))


def test_a_state_that_has_grown_beyond_this_program_ends_it_by_name(store: StateStore) -> None:
    host = Host(store)
    host.growing.growth.level = growth.LEVEL + 1
    host.growing.look()
    assert "this host is older than the cluster's data" in host.failed[0]

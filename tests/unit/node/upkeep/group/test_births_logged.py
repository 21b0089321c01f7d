"""The leader of shard 0 judges births by what it has logged, and by what is applied before it logged any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import errors
from cluster.effects import records
from cluster.errors import EtcdError
from cluster.features import births, growth
from cluster.members import table as members
from cluster.order.log import Attempt, Multi, encode_multi
from cluster.pb import shards_pb2
from cluster.placement.table import State
from cluster.raft import Entry, EntryKind
from cluster.wire.frames import HIGHEST
from cluster.wire.messages import Method
from node.replica.applying import one_run
from node.storage import StateStore
from tests.unit.node.upkeep.group.test_growing import Host, said

ADD = bytes((births.ADD,))


def retire(shard: int) -> bytes:
    return bytes((births.RETIRE,)) + shards_pb2.RetireShardRequest(shard=shard).SerializeToString()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    store = StateStore.open(tmp_path)
    made = Host(store, leads=True)
    node: Any = made.growing._node
    node.roster.changes = SimpleNamespace(settled=True)
    made.growing._raft.configuration = SimpleNamespace(voters={1, 2, 3})  # type: ignore[misc]
    made.versions.update({2: HIGHEST, 3: HIGHEST})
    yield made
    store.close()


def test_births_are_judged_by_the_layout_that_is_applied_after_the_leaders_first_look(host: Host) -> None:
    leader = host.leader
    assert leader is not None
    assert leader.told.table is None, "its own first record is the layout"
    host.apply(records.bootstrap(1, 1, 2), said(1, 2, 3))
    leader.told.growth.take([growth.row(i, growth.OWN.encode()) for i in (1, 2, 3)])
    with pytest.raises(EtcdError, match="run `musterctl shard enable-growth` first"):
        leader.execute(Method.SHARD_CHANGE, ADD)
    leader.execute(Method.GROW, b"")
    answer = leader.execute(Method.SHARD_CHANGE, ADD)
    assert shards_pb2.AddShardResponse.FromString(answer.tail).shard == 1
    with pytest.raises(EtcdError) as busy:
        leader.execute(Method.SHARD_CHANGE, ADD)
    assert busy.value.text == errors.SHARD_BUSY.text.format(shard=1, state="forming"), "as logged"
    assert leader.told.forming == 1
    host.apply(host.sealed())
    table = host.store.placement()
    assert table is not None
    assert table.shards[1] == (State.FORMING, 1, (1, 2, 3))
    # a forced start logs rows of members whatever the table says: they end no process
    host.apply(records.host(members.Host(2, "b", ("http://b:1",), removed=True).encode()))
    assert host.store.hosts()


def test_without_a_layout_nothing_is_born_and_nothing_ends(host: Host) -> None:
    leader = host.leader
    assert leader is not None
    leader.told.growth.level = births.BIRTHS
    for body in (ADD, retire(1)):
        with pytest.raises(EtcdError):
            leader.execute(Method.SHARD_CHANGE, body)


def test_the_level_is_judged_before_all_else(host: Host) -> None:
    """It stays, while a layout comes with the first records."""
    leader = host.leader
    assert leader is not None
    leader.told.growth.level = births.BIRTHS - 1
    text = errors.SHARD_LEVEL.text.format(level=births.BIRTHS - 1, needed=births.BIRTHS)
    for first in (b"", records.bootstrap(1, 1, 2)):
        host.apply(first)
        for body in (ADD, retire(0), retire(1), retire(7), b"\x02\xff"):
            with pytest.raises(EtcdError) as refused:
                leader.execute(Method.SHARD_CHANGE, body)
            assert refused.value.text == text


def test_what_is_no_request_is_refused(host: Host) -> None:
    leader = host.leader
    assert leader is not None
    leader.told.growth.level = births.BIRTHS
    host.apply(records.bootstrap(1, 1, 2))
    for body in (b"", b"\x02\xff", b"\x07"):
        with pytest.raises(EtcdError):
            leader.execute(Method.SHARD_CHANGE, body)


def test_a_run_ends_with_the_record_in_which_the_data_grows() -> None:
    multi = encode_multi(Multi(Attempt(1, 1), 0, {}, []))
    data = [records.put(b"k\x1e", 0, 1, b"v", 0), records.delete(b"k") + growth.item(2, (1,)), multi]
    entries = [Entry(index, 1, EntryKind.RECORD, one) for index, one in enumerate(data, 1)]
    assert [index for index, _, _ in one_run(entries)] == [1, 2], "the role of one shard reads no multi"
    assert len(one_run(entries[:1])) == 1

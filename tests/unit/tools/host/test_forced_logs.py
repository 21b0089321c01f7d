"""What ``--force-new-cluster`` makes of the logs of a host that is left."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from cluster.effects import records
from cluster.members.table import Host
from cluster.order.log import decode_cut
from cluster.raft.types import Configuration, EntryKind
from node.storage import RaftLog
from tests.unit.backup.orders import GROUP, OTHERS, OWN, PEERS, SHARDS, Order, host_with
from tools.muster.host.identity import forcing

NEW = Host(0xD4, "", ("http://127.0.0.1:2390",), learner=True)


def forced(data_dir: Path, order: Order, places: dict[int, int], ends: dict[int, int]) -> None:
    identity = host_with(order, data_dir, places, ends)
    forcing.force(str(data_dir), identity, structlog.get_logger())


@contextlib.contextmanager
def log_of(data_dir: Path, shard: int) -> Iterator[RaftLog]:
    with contextlib.closing(RaftLog.open(data_dir / f"member/shard-{shard}/log", initial=GROUP)) as log:
        yield log


def rows_in(data_dir: Path) -> list[Host]:
    """The hosts that the order log's last record names."""
    with log_of(data_dir, 0) as log:
        (entry,) = log.entries(log.last_index(), log.last_index(), 1 << 20)
        return [Host.decode(entry.data[at:to]) for kind, at, to in records.items(entry.data)
                if kind == records.Item.HOST]


def test_hosts_that_are_logged_and_not_applied_are_removed_too(tmp_path: Path) -> None:
    order = Order.made(2)
    order.records[50] += records.host(NEW.encode())
    forced(tmp_path, order, dict.fromkeys(range(SHARDS), 20), {s: len(order.entries[s]) for s in OTHERS})
    rows = {row.member_id: row.removed for row in rows_in(tmp_path)}
    assert rows == {PEERS[1].member_id: True, PEERS[2].member_id: True, NEW.member_id: True}


@pytest.mark.parametrize("seed", range(3))
def test_no_term_that_the_order_names_comes_again(tmp_path: Path, seed: int) -> None:
    """Also where the host has nothing of it: another host may have entries of that term."""
    order = Order.made(seed)
    place = 25
    forced(tmp_path, order, dict.fromkeys(range(SHARDS), place), {s: order.cuts[place][s] for s in OTHERS})
    named = dict.fromkeys(OTHERS, 0)
    for data in order.records:
        for kind, at, to in records.items(data):
            if kind == records.Item.CUT:
                for shard, cut in decode_cut(data, at, to):
                    named[shard] = max(named[shard], cut.term)
    for shard in OTHERS:
        with log_of(tmp_path, shard) as log:
            assert log.hard_state().term == log.term(log.last_index()) > named[shard]
            (last,) = log.entries(log.last_index(), log.last_index(), 1 << 20)
            assert last.kind == EntryKind.CONFIG
            assert Configuration.decode(last.data).members() == {OWN}
            assert order.term(order.cuts[place][shard]) < named[shard]  # its own log said less

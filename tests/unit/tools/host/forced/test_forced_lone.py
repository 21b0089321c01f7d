"""What ``--force-new-cluster`` makes of the logs of a host that is alone already."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from cluster.raft.types import Configuration
from node.backup.stopped import dropped
from node.backup.stopped.carrying import carry
from node.storage import StateStore
from tests.unit.backup import orders
from tests.unit.backup.orders import OTHERS, OWN, PEERS, SHARDS, Order, host_with
from tests.unit.tools.host.forced.test_forced_logs import log_of, versions_of, written_behind, written_in
from tools.muster.host.identity import forcing
from tools.muster.host.identity.bootstrap import Identity


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "GROUP", Configuration(frozenset({OWN})))


def lone_host(order: Order, data_dir: Path, places: dict[int, int], ends: dict[int, int]) -> Identity:
    return replace(host_with(order, data_dir, places, ends), peers=PEERS[:1])


def force(data_dir: Path, identity: Identity) -> None:
    forcing.force(str(data_dir), identity, structlog.get_logger())


def carried(data_dir: Path) -> dict[int, tuple[int, int]]:
    """Each shard's last entry in order and its revision, once all that the logs hold is applied."""
    found = {}
    with log_of(data_dir, 0) as records:
        for shard in range(SHARDS):
            state = data_dir / f"member/shard-{shard}/state"
            with contextlib.ExitStack() as opened:
                store = opened.enter_context(
                    contextlib.closing(StateStore.open(state, range_cache_bytes=0, shard=shard)))
                own = opened.enter_context(log_of(data_dir, shard)) if shard else None
                carry(store, shard, own, records, records.last_index())
                found[shard] = store.position.shard_index, store.revision
    return found


@pytest.mark.parametrize("seed", range(3))
def test_the_order_ends_before_entries_that_the_host_lost(tmp_path: Path, seed: int) -> None:
    """After a power cut. The shard's node waited for them for ever, and the forced start said that there was
    nothing to do."""
    order, place = Order.made(seed), 25
    ends = {1: order.cuts[place][1], 2: len(order.entries[2])}
    identity = lone_host(order, tmp_path, {0: 20, 1: 10, 2: 20}, ends)
    force(tmp_path, identity)
    kept = max(at for at, cuts in enumerate(order.cuts) if cuts[1] <= ends[1])
    (found,) = dropped.found_in(tmp_path / "member")
    assert versions_of(list(dropped.read(found.path))) == written_behind(order, kept, ends)
    revision = order.revisions[kept]
    assert carried(tmp_path) == {  # shard 0's configuration is in its order
        0: (kept + 1, revision), **{shard: (order.cuts[kept][shard], revision) for shard in OTHERS}}
    logs = written_in(tmp_path)
    force(tmp_path, identity)  # the flag stays
    assert written_in(tmp_path) == logs


def test_where_nothing_is_lost_entries_that_are_not_in_order_stay(tmp_path: Path) -> None:
    order = Order.made(2)
    ends = {shard: len(order.entries[shard]) for shard in OTHERS}
    assert ends != order.cuts[-1]
    identity = lone_host(order, tmp_path, dict.fromkeys(range(SHARDS), 20), ends)
    logs = written_in(tmp_path)
    force(tmp_path, identity)
    assert written_in(tmp_path) == logs
    assert dropped.found_in(tmp_path / "member") == []

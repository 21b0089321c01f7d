"""Where a copy of keys that move finds no room."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.effects import records
from cluster.features.moves import UNBOUNDED, Room
from cluster.pb import rpc_pb2 as pb
from node.upkeep.space import disks
from tests.unit.node.upkeep.replicas import Make

QUOTA, MARGIN, BUFFERS = 16_000, 10_000, 1_000


@pytest.mark.parametrize(("free", "lacks"), [
    (MARGIN + BUFFERS, (False, False)), (MARGIN + BUFFERS - 1, (True, False)),
    (MARGIN // 2, (True, False)), (MARGIN // 2 - 1, (True, True))])
def test_a_copy_leaves_the_margin_and_half_of_it_where_it_ends(
    replica: Make, monkeypatch: pytest.MonkeyPatch, free: int, lacks: tuple[bool, bool]
) -> None:
    monkeypatch.setattr(disks, "free_bytes", lambda path: free)
    for shard in (0, 1):  # each node looks by itself
        node = replica(shard=shard, min_free_disk_bytes=MARGIN, write_buffer_bytes=BUFFERS)
        found = [node.upkeep.room.lacks(ends=ends) for ends in (False, True)]
        assert tuple(map(bool, found)) == lacks
        assert all(f"{free} bytes of the file system are free" in why for why in found if why)


def test_without_a_margin_a_copy_leaves_what_write_buffers_take(
    replica: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where RocksDB finds no room for a flush, the node ends with its next write."""
    room = replica(min_free_disk_bytes=0, write_buffer_bytes=BUFFERS).upkeep.room
    for free in (BUFFERS, BUFFERS - 1):
        monkeypatch.setattr(disks, "free_bytes", lambda path, free=free: free)
        assert bool(room.lacks(ends=False)) == (free < BUFFERS)
        assert not room.lacks(ends=True)


def test_a_disk_that_does_not_tell_is_no_reason_to_wait(
    replica: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(path: str) -> int:
        raise OSError("gone")

    monkeypatch.setattr(disks, "free_bytes", fails)
    assert not replica(min_free_disk_bytes=MARGIN).upkeep.room.lacks(ends=True)


def test_a_sixteenth_of_the_quota_is_left_to_clients(
    replica: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all shards of the host together. What is whole goes on."""
    monkeypatch.setattr(disks, "free_bytes", lambda path: UNBOUNDED)
    two = [replica(shard=shard, run_dir=str(tmp_path), quota_backend_bytes=QUOTA) for shard in (0, 1)]
    used = [8_000, 6_999]
    for shard, node in enumerate(two):
        monkeypatch.setattr(node.store, "size_in_use_bytes", lambda shard=shard: used[shard])
        node.upkeep.second()
    for node in two:
        node.upkeep.second()
        assert not node.upkeep.room.lacks(ends=False)
    assert two[0].upkeep.room.facts() == Room(
        False, 1, UNBOUNDED - two[0].settings.write_buffer_bytes, {0: 8_000, 1: 6_999})
    used[1] += 1
    assert "less than a sixteenth of the quota is left: 1000 bytes" in two[1].upkeep.room.lacks(ends=False)
    assert not two[1].upkeep.room.lacks(ends=True)
    assert not replica(quota_backend_bytes=0).upkeep.room.lacks(ends=False)


@pytest.mark.parametrize(("used", "gives_back"), [(QUOTA // 2, False), (QUOTA - QUOTA // 16, True)])
def test_rows_that_went_are_given_back_where_room_is_short(
    replica: Make, monkeypatch: pytest.MonkeyPatch, used: int, gives_back: bool
) -> None:
    """RocksDB counts them until it has merged their end: a move that was cancelled would block the next."""
    node = replica(quota_backend_bytes=QUOTA)
    monkeypatch.setattr(node.store, "size_in_use_bytes", lambda: used)
    done: list[float] = []

    def defragment(spare_bytes: int, hosts: int) -> None:
        node.loop.now_s += 1.0
        done.append(node.loop.now_s)

    monkeypatch.setattr(node.store, "defragment", defragment)
    node.upkeep.moved_rows_went()
    assert bool(done) is gives_back


def test_the_leader_says_whether_data_is_refused(replica: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    node = replica(quota_backend_bytes=QUOTA)
    used = 0
    monkeypatch.setattr(node.store, "size_in_use_bytes", lambda: used)
    assert not node.upkeep.room.facts().refuses
    node.apply(records.alarm(True, pb.NOSPACE, 2))
    assert node.upkeep.room.facts().refuses
    node.apply(records.alarm(False, pb.NOSPACE, 2))
    assert not node.upkeep.room.facts().refuses
    used = QUOTA
    node.upkeep.second()
    assert node.upkeep.room.facts().refuses

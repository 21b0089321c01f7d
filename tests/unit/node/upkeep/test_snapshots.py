"""A state on its way to a peer: slow disks, transfers that are superseded, and what they leave behind."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.grain import GRAIN
from cluster.raft import Config, Kind, Message, Raft, Role
from cluster.raft.types import Entry, HardState
from node.storage import RaftLog, StateStore, snapshot
from node.storage.snapshot import SnapshotSink, SnapshotSource
from node.upkeep.log.snapshots import _ACK, _FRAME
from tests.unit.node.upkeep.sending import GROUP, Host, World


def test_a_snapshot_whose_sync_takes_a_minute_is_installed_and_sent_once(
    world: World, hosts: dict[int, Host]
) -> None:
    world.finish_s = 60.0
    hosts[1].feed(2)
    world.run(90.0)
    sender, receiver = hosts[1].snapshots, hosts[2].snapshots
    assert (receiver.installed, sender.sent, sender.failed) == (1, 1, 0)
    assert hosts[2].store.position == hosts[1].store.position
    assert hosts[1].directories() == hosts[2].directories() == []
    assert (sender.lives.count, receiver.saves.count, receiver.syncs.count) == (1, 1, 1)
    assert 60 <= receiver.saves.sum < sender.lives.sum < 61
    assert 0 < receiver.syncs.sum < 60


def test_an_ack_of_a_transfer_in_an_earlier_life_opens_no_window(
    world: World, hosts: dict[int, Host]
) -> None:
    """Each process counts its transfers from one, and an ack of the first may still be on its way."""
    hosts[1].put(500)
    sent: list[int] = []

    def count(peer: int, kind: bytes, data: bytes) -> bool:
        sent.append(len(data))
        return True

    hosts[1].peers.send = count
    with GRAIN.finer(snapshot_window_bytes=10_000, snapshot_chunk_bytes=5_000):
        hosts[1].feed(2)
        world.run(0.5)
        before = sum(sent)
        hosts[1].snapshots.frame(2, _FRAME.pack(_ACK, 1, 1 << 40))
        assert sum(sent) < before + 20_000 < hosts[1].store.size_bytes()


def told(host: Host, way: str) -> dict[str, tuple[int, int, int]]:
    """By peer: transfers that are done, that were in vain, that go on."""
    found = host.snapshots.figures()[way]
    for figures in found.values():
        assert sum(figures["took"]["counts"]) == figures["success"]
    return {peer: (f["success"], f["failures"], f["inflights"]) for peer, f in found.items()}


def test_transfers_are_told_from_their_begin_to_their_end(world: World, hosts: dict[int, Host]) -> None:
    world.finish_s = 20.0
    assert (told(hosts[1], "send"), told(hosts[2], "receive")) == ({}, {})
    hosts[1].snapshots.send_to(2, 0)
    world.run(10.0)
    assert (told(hosts[1], "send"), told(hosts[2], "receive")) == ({"2": (0, 0, 1)}, {"1": (0, 0, 1)})
    assert (hosts[1].snapshots.installing, hosts[2].snapshots.installing) == (False, True)
    world.run(30.0)
    assert (told(hosts[1], "send"), told(hosts[2], "receive")) == ({"2": (1, 0, 0)}, {"1": (1, 0, 0)})
    assert not hosts[2].snapshots.installing
    for figures in (hosts[1].snapshots.figures()["send"]["2"], hosts[2].snapshots.figures()["receive"]["1"]):
        assert figures["took"]["sum"] == pytest.approx(20.0, abs=1.0)
        assert figures["took"]["counts"][-3] == 1, "up to 25.6 s"


def test_one_that_came_in_part_when_another_began_was_in_vain(world: World, hosts: dict[int, Host]) -> None:
    hosts[1].peers.send = lambda peer, kind, data: len(data) < 1000 and hosts[1]._send(peer, kind, data)
    hosts[1].snapshots.send_to(2, 0)
    world.run(5.0)
    hosts[3].snapshots.send_to(2, 0)
    world.run(10.0)
    assert told(hosts[2], "receive") == {"1": (0, 1, 0), "3": (1, 0, 0)}


def test_what_is_superseded_while_it_is_synced_is_installed_if_it_is_news_and_leaves_nothing(
    world: World, hosts: dict[int, Host],
) -> None:
    """A leader that was deposed sent one, then its successor another: each takes a minute to sync."""
    world.finish_s = 60.0
    hosts[1].snapshots.send_to(2, 0)
    world.run(5.0)
    hosts[3].put(10)
    hosts[3].feed(2)
    most = 0
    for second in range(6, 200):
        world.run(float(second))
        most = max(most, len(hosts[2].directories()))
    assert hosts[2].snapshots.installed == 2
    assert hosts[2].store.position == hosts[3].store.position
    assert told(hosts[2], "receive") == {"1": (1, 0, 0), "3": (1, 0, 0)}
    assert told(hosts[1], "send")["2"][1:] == (1, 0), "who sent the older one hears of nobody"
    assert most == 2
    assert hosts[1].directories() == hosts[2].directories() == hosts[3].directories() == []


def test_many_that_are_superseded_leave_one_that_is_synced_and_one_that_comes(
    world: World, hosts: dict[int, Host]
) -> None:
    world.finish_s = 60.0
    for turn in range(20):
        hosts[1 if turn % 2 else 3].snapshots.send_to(2, 0)
        world.run(world.now + 2.0)
        assert len(hosts[2].directories()) <= 2
    world.run(300.0)
    assert hosts[2].snapshots.installed >= 1
    assert hosts[1].directories() == hosts[2].directories() == hosts[3].directories() == []


def test_one_that_is_refused_once_it_is_whole_leaves_nothing(world: World, hosts: dict[int, Host]) -> None:
    hosts[2].raft.role = Role.LEADER
    hosts[1].snapshots.send_to(2, 0)
    world.run(5.0)
    assert (hosts[2].snapshots.installed, hosts[1].snapshots.failed) == (0, 1)
    assert (told(hosts[1], "send"), told(hosts[2], "receive")) == ({"2": (0, 1, 0)}, {"1": (0, 1, 0)})
    assert hosts[1].directories() == hosts[2].directories() == []


def test_one_that_is_no_news_is_refused_before_the_log_hears_of_it(
    world: World, hosts: dict[int, Host]
) -> None:
    begun = []
    hosts[2].log.begin_install = begun.append
    hosts[2].put(60)
    hosts[1].snapshots.send_to(2, 0)
    world.run(5.0)
    assert (hosts[2].snapshots.installed, hosts[1].snapshots.failed, begun) == (0, 1, [])
    assert hosts[2].directories() == []
    assert len(hosts[2].said) == 1, "the leader may have missed the answer to an install"


def test_one_that_is_no_news_is_refused_by_its_first_bytes(
    world: World, hosts: dict[int, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    write = SnapshotSink.write

    def counted(sink: SnapshotSink, data: bytes) -> None:
        taken.append(len(data))
        write(sink, data)

    monkeypatch.setattr(SnapshotSink, "write", counted)
    hosts[2].put(60)
    with GRAIN.finer(snapshot_chunk_bytes=1000):
        hosts[1].snapshots.send_to(2, 0)
        world.run(5.0)
    assert (taken, len(hosts[2].said), hosts[1].snapshots.failed) == ([1000], 1, 1)


def test_one_that_is_no_news_is_answered_where_the_disk_has_no_room_for_it(
    world: World, hosts: dict[int, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts[2].settings.min_free_disk_bytes = 1 << 30
    hosts[2].put(60)
    monkeypatch.setattr("node.storage.directory.free_bytes", lambda of: 100)
    hosts[1].snapshots.send_to(2, 0)
    world.run(0.5)
    assert (hosts[1].snapshots.failed, len(hosts[2].said)) == (1, 1)


def test_entries_on_disk_that_contradict_a_state_go_from_raft_too(
    tmp_path: Path, world: World, hosts: dict[int, Host]
) -> None:
    """Nothing of them is in memory after a restart: Raft has to ask the disk before that begins anew."""
    stored = RaftLog.open(tmp_path / "log", initial=GROUP, no_fsync=True)
    stored.append([Entry(index, 1, 1, b"old") for index in range(1, 11)], HardState(1, 0, 2))
    stored.close()
    hosts[2].log = log = RaftLog.open(tmp_path / "log", initial=GROUP, no_fsync=True)
    hosts[2].raft = raft = Raft(Config(2), log, lambda: 0.5, 0)
    raft.applied(2)
    at = hosts[1].store.position
    receiving: Any = SimpleNamespace(peer=1, sink=None, configuration=GROUP)
    hosts[2].store.install = lambda sink: None  # type: ignore[method-assign, assignment]
    hosts[2].snapshots._install(receiving, at._replace(shard_index=5, term=2))
    assert (raft.last_index, raft.log.last_term) == (log.last_index(), log.term(5)) == (5, 2)
    raft.step(Message(Kind.APPEND, 1, 2, 2, 5, 2, 5, entries=[Entry(6, 2, 1, b"new")]), 5000)
    assert raft.last_index == 6
    log.close()


def test_a_disk_that_fails_while_it_is_synced_refuses_it(
    world: World, hosts: dict[int, Host], monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("node.storage.directory.sync_tree", full)
    hosts[1].snapshots.send_to(2, 0)
    world.run(5.0)
    assert (hosts[2].snapshots.installed, hosts[1].snapshots.failed) == (0, 1)
    assert hosts[2].directories() == []


def test_one_whose_sender_falls_silent_is_dropped(world: World, hosts: dict[int, Host]) -> None:
    hosts[1].peers.send = lambda peer, kind, data: len(data) < 1000 and hosts[1]._send(peer, kind, data)
    hosts[1].snapshots.send_to(2, 0)
    world.run(5.0)
    assert len(hosts[2].directories()) == 1
    assert told(hosts[2], "receive") == {"1": (0, 0, 1)}
    world.run(120.0)
    assert told(hosts[2], "receive") == {"1": (0, 1, 0)}
    assert hosts[2].directories() == []


def test_a_host_that_stops_while_it_finishes_installs_nothing(world: World, hosts: dict[int, Host]) -> None:
    world.finish_s = 60.0
    hosts[1].snapshots.send_to(2, 0)
    world.run(5.0)
    hosts[2].stopping = True
    hosts[2].snapshots.close()
    world.run(90.0)
    assert hosts[2].snapshots.installed == 0
    assert hosts[2].directories() == []


def test_what_a_killed_process_left_is_removed_at_the_start(world: World, hosts: dict[int, Host]) -> None:
    left = SnapshotSource.create(hosts[1].store, f"{hosts[1].settings.data_dir}/outgoing")
    SnapshotSink(hosts[1].state)
    assert len(hosts[1].directories()) == 2
    hosts[1].store.close()
    snapshot._live.discard(left.directory)  # the process that made it is gone
    hosts[1].store = StateStore.open(hosts[1].state, block_cache_bytes=1 << 20, write_buffer_bytes=1 << 20)
    hosts[1].machine.remove_left_snapshots(hosts[1].state.parent)
    assert hosts[1].directories() == []

"""A state that could not be made, sent or taken: when the next one is sent, and what is checked before."""

from __future__ import annotations

import builtins
import errno
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from cluster.raft import Role
from node.storage import SnapshotRefused, StateStore, StorageCorruption, SyncFailed, snapshot
from node.storage.directory import write_current
from node.storage.errors import DiskFull, Scarce
from node.storage.snapshot import SnapshotSink, SnapshotSource
from tests.unit.node.upkeep.sending import Host, World
from tests.unit.storage.state.stores import damage_table


def test_a_replica_without_room_for_a_directory_refuses_and_serves_on(
    world: World, hosts: dict[int, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, spare_bytes: int) -> SnapshotSink:
        raise OSError(28, "No space left on device", str(folder))

    with monkeypatch.context() as patch:
        patch.setattr(hosts[2].machine, "snapshot_into", full)
        hosts[1].feed(2)
        with capture_logs() as lines:
            world.run(100.0)
    assert hosts[1].snapshots.failed == 8, "after 1, 2, 4, 8, 16, 30 and 30 s"
    assert [line["event"] for line in lines].count("a snapshot was not delivered") == 2, "one a minute"
    assert hosts[2].snapshots.installed == 0
    world.run(130.0)
    assert hosts[2].snapshots.installed == 1
    hosts[1].put(1)
    monkeypatch.setattr(hosts[2].raft, "role", Role.LEADER)
    hosts[1].feed(2)
    world.run(132.5)
    assert hosts[1].snapshots.failed == 10, "one that was installed ends the long pauses"


def test_a_connection_that_was_lost_asks_for_no_pause(world: World, hosts: dict[int, Host]) -> None:
    send, tries = hosts[1].peers.send, []

    def lost(peer: int, kind: bytes, data: bytes) -> bool:
        tries.append(world.now)
        return len(tries) > 5 and bool(send(peer, kind, data))

    hosts[1].peers.send = lost
    hosts[1].feed(2)
    world.run(1.0)
    assert (hosts[1].snapshots.failed, hosts[2].snapshots.installed) == (5, 1)


def test_a_disk_that_makes_no_snapshot_is_not_asked_at_once_again(
    world: World, hosts: dict[int, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(store: StateStore, folder: Path) -> SnapshotSource:
        raise SyncFailed("No space left on device")

    with monkeypatch.context() as patch, capture_logs() as lines:
        patch.setattr(hosts[1].machine, "snapshot_of", full)
        hosts[1].feed(2)
        world.run(10.0)
    assert [line["event"] for line in lines] == ["a snapshot could not be made"]
    assert hosts[2].snapshots.installed == 0
    world.run(20.0)
    assert hosts[2].snapshots.installed == 1


def test_a_peer_that_refuses_them_and_asks_each_second_gets_few(world: World, hosts: dict[int, Host]) -> None:
    """Each cost a flush and a checkpoint of a host that was well, for as long as the peer lacked room."""
    hosts[2].raft.role = Role.LEADER
    for second in range(1, 61):
        hosts[1].snapshots.send_to(2, 0)
        world.run(float(second))
    assert 2 <= hosts[1].snapshots.failed <= 6


def test_a_sender_that_was_refused_for_its_damaged_table_ends(
    world: World, hosts: dict[int, Host], caplog: pytest.LogCaptureFixture
) -> None:
    hosts[2].put(5)
    before = hosts[2].store.position
    hosts[1].put(500)
    hosts[1].store.close()
    damage_table(hosts[1].store)
    hosts[1].store = StateStore.open(hosts[1].state, block_cache_bytes=1 << 20, write_buffer_bytes=1 << 20)
    hosts[1].feed(2)
    with capture_logs() as lines:
        world.run(5.0)
    (refused,) = [line for line in lines if line["event"] == "a snapshot was refused"]
    assert refused["peer"] == "1"
    assert refused["reason"].startswith("it came with a damaged file: ")
    (ended,) = [line.exc_info[1] for line in caplog.records if line.exc_info]
    assert isinstance(ended, StorageCorruption)
    assert re.search(rf"{hosts[1].state}.*checksum mismatch.*\.sst", str(ended))
    assert (hosts[2].snapshots.installed, hosts[2].store.position) == (0, before)
    assert hosts[1].directories() == hosts[2].directories() == []


def raises(error: Exception) -> Callable[..., Any]:
    def fails(*_: object) -> Any:
        raise error

    return fails


@pytest.fixture
def checks(world: World, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When a sender checked its tables."""
    found, check = [], SnapshotSource.check

    def counted(source: SnapshotSource) -> None:
        found.append(world.now)
        check(source)

    monkeypatch.setattr(SnapshotSource, "check", counted)
    return found


def test_a_sender_whose_tables_are_whole_goes_on(
    world: World, hosts: dict[int, Host], monkeypatch: pytest.MonkeyPatch, checks: list[float]
) -> None:
    """The receiver's own disk is damaged. Each refusal that blames the sender costs one check."""
    with monkeypatch.context() as patch:
        refusal = SnapshotRefused("it came with a damaged file: 000008.sst")
        patch.setattr(SnapshotSink, "finish", raises(refusal))
        hosts[1].feed(2)
        world.run(2.0)
    failed = hosts[1].snapshots.failed
    world.run(60.0)
    assert hosts[2].snapshots.installed == 1
    assert len(checks) == failed > 0


def test_a_refusal_for_another_reason_costs_no_check(
    world: World, hosts: dict[int, Host], monkeypatch: pytest.MonkeyPatch, checks: list[float]
) -> None:
    monkeypatch.setattr(hosts[2].raft, "role", Role.LEADER)
    hosts[1].feed(2)
    world.run(10.0)
    assert hosts[1].snapshots.failed > 1
    assert checks == []


def test_a_state_that_cannot_be_read_as_it_is_sent_is_checked_before_the_next_one(
    world: World, hosts: dict[int, Host], monkeypatch: pytest.MonkeyPatch, checks: list[float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It ended the sender, again and again: its next leader was asked for the state at once."""
    reads: list[float] = []

    def fails_at_first(*file: Any) -> Any:
        reads.append(world.now)
        if len(reads) == 1:
            raise OSError(errno.EIO, "Input/output error", str(file[0]))
        return builtins.open(*file)

    monkeypatch.setattr(snapshot, "open", fails_at_first, raising=False)
    hosts[1].feed(2)
    with capture_logs() as lines:
        world.run(0.5)
    assert not [line for line in caplog.records if line.exc_info]
    (told,) = [line for line in lines if line["event"] == "a snapshot was not delivered"]
    assert re.search(rf"Input/output error: .*{hosts[1].state.parent}", told["reason"])
    assert (hosts[1].snapshots.failed, hosts[1].directories(), checks) == (1, [], [])
    world.run(10.0)
    assert hosts[2].snapshots.installed == 1
    assert len(checks) == 1


@pytest.mark.parametrize("failing", ["check", "create"])
def test_a_check_that_fails_leaves_no_copy_and_is_made_before_the_next_one_is_sent(
    world: World, hosts: dict[int, Host], monkeypatch: pytest.MonkeyPatch, checks: list[float], failing: str
) -> None:
    hosts[1].snapshots._doubted = True
    with monkeypatch.context() as patch, capture_logs() as lines:
        patch.setattr(SnapshotSource, failing, raises(DiskFull("here", "a check")))
        hosts[1].feed(2)
        world.run(0.5)
    assert [line["event"] for line in lines] == ["a snapshot could not be made"]
    assert hosts[1].directories() == []
    world.run(10.0)
    assert hosts[2].snapshots.installed == 1
    assert len(checks) == 1


def test_after_a_few_checks_that_fail_one_is_sent_unchecked(
    world: World, hosts: dict[int, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check that could never be made kept every replica from catching up."""
    tries: list[float] = []

    def fails(source: SnapshotSource) -> None:
        tries.append(world.now)
        raise OSError("its tables cannot be checked")

    monkeypatch.setattr(SnapshotSource, "check", fails)
    sender = hosts[1]
    for turn in (1, 2):
        sender.snapshots._doubted = True
        sender.put(1)
        sender.feed(2)
        with capture_logs() as lines:
            world.run(world.now + 70.0)
        assert hosts[2].snapshots.installed == turn
        assert len(tries) == 3 * turn, "each doubt has its own checks"
        events = [line["event"] for line in lines]
        assert events.count("the next snapshot is sent unchecked") == 1
    assert hosts[1].directories() == hosts[2].directories() == []


def test_states_that_cannot_be_made_end_no_doubt(
    world: World, hosts: dict[int, Host], monkeypatch: pytest.MonkeyPatch, checks: list[float]
) -> None:
    hosts[1].snapshots._doubted = True
    with monkeypatch.context() as patch:
        patch.setattr(SnapshotSource, "create", raises(DiskFull("here", "a checkpoint")))
        hosts[1].feed(2)
        world.run(20.0)
    world.run(60.0)
    assert hosts[2].snapshots.installed == 1
    assert len(checks) == 1


@pytest.mark.parametrize("error", [DiskFull("here", "opening"), Scarce("Too many open files")])
def test_a_receiver_whose_disk_is_full_at_the_check_refuses_and_serves_on(
    world: World, hosts: dict[int, Host], monkeypatch: pytest.MonkeyPatch, checks: list[float],
    caplog: pytest.LogCaptureFixture, error: Exception,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(SnapshotSink, "finish", raises(error))
        hosts[1].feed(2)
        world.run(2.0)
    assert not [line for line in caplog.records if line.exc_info]
    assert hosts[1].snapshots.failed > 0
    world.run(60.0)
    assert hosts[2].snapshots.installed == 1
    assert checks == [], "that tells nothing of the sender's tables"


def test_damage_of_a_state_that_was_replaced_meanwhile_ends_no_node(
    world: World, hosts: dict[int, Host], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sender = hosts[1]
    sender.snapshots._doubted = True

    def check(source: SnapshotSource) -> None:
        write_current(sender.store.root, "db-2")
        raise StorageCorruption(f"{source.directory}: Corruption: {source.directory}/000008.sst")

    monkeypatch.setattr(SnapshotSource, "check", check)
    sender.feed(2)
    with capture_logs() as lines:
        world.run(10.0)
    assert not [line for line in caplog.records if line.exc_info]
    assert hosts[2].snapshots.installed == 1
    assert not sender.snapshots._doubted, "nobody has refused what it has now"
    (said,) = [line["error"] for line in lines if line["event"] == "a snapshot could not be made"]
    replaced = f"{sender.state}/db-1"
    assert said.startswith(f"{replaced} is damaged, ")
    assert said.endswith(f": {replaced}: Corruption: {replaced}/000008.sst"), "where it stands, not its copy"

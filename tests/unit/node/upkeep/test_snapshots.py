"""A state on its way to a peer: slow disks, transfers that are superseded, and what they leave behind."""

from __future__ import annotations

import builtins
import errno
import heapq
import itertools
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from cluster.effects import records
from cluster.grain import GRAIN
from cluster.raft import Config, Configuration, Kind, Message, Raft, Role
from cluster.raft.types import Entry, HardState
from node.storage import RaftLog, SnapshotRefused, StateStore, StorageCorruption, SyncFailed, snapshot
from node.storage.directory import write_current
from node.storage.errors import DiskFull, Scarce
from node.storage.snapshot import SnapshotSink, SnapshotSource
from node.upkeep.log.catching_up import CatchingUp
from node.upkeep.log.snapshots import _ACK, _FRAME, Snapshots
from tests.unit.machines import machine_on
from tests.unit.storage.state.stores import damage_table

GROUP = Configuration(frozenset((1, 2, 3)))
RETRY_S = 0.1  # Raft asks again after a heartbeat


class World:
    """A clock that the test turns, and what happens at which time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._serial = itertools.count()
        self.finish_s = 0.0

    def time(self) -> float:
        return self.now

    def at(self, after_s: float, call: Callable[[], object]) -> None:
        heapq.heappush(self._events, (self.now + after_s, next(self._serial), call))

    def call_later(self, after_s: float, call: Callable[..., object], *args: object) -> None:
        self.at(after_s, lambda: call(*args))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, call = heapq.heappop(self._events)
            call()
        self.now = until

    def run_in_executor(self, executor: object, work: Callable[..., Any], *args: Any) -> Future[Any]:
        """The work is done at the end of the time that it takes."""
        done: Future[Any] = Future()

        def run() -> None:
            try:
                result = work(*args)
            except Exception as e:
                done.set_exception(e)
            else:
                done.set_result(result)

        self.at(self.finish_s if getattr(work, "__func__", None) is SnapshotSink.finish else 0.0, run)
        return done


class Host:
    """One member of a group, as far as its snapshots need it."""

    def __init__(self, world: World, member_id: int, folder: Path) -> None:
        self.world, self.loop, self.member_id = world, world, member_id
        self.machine = machine_on(world)
        self.settings = SimpleNamespace(data_dir=str(folder), min_free_disk_bytes=1)
        self.state = folder / "state"
        self.store = StateStore.open(self.state, block_cache_bytes=1 << 20, write_buffer_bytes=1 << 20)
        self.stopping = False
        self.hosts: dict[int, Host] = {}
        self.said: list[float] = []  # when Raft was asked to answer its leader again
        self.wanting: set[int] = set()  # peers that Raft sends states to until they have one
        self.log = SimpleNamespace(begin_install=lambda at: None, finish_install=lambda at: None)
        self.raft = SimpleNamespace(
            role=Role.FOLLOWER, snapshot_sent=self._sent, snapshot_installed=lambda at: True,
            say_committed=lambda: self.said.append(world.now),
            position_at=lambda index: SimpleNamespace(configuration=GROUP))
        self.peers = SimpleNamespace(send=self._send)
        self.snapshots = Snapshots(self, CatchingUp())  # type: ignore[arg-type]
        self._sweep()

    def put(self, count: int) -> None:
        first = self.store.position.order_index + 1
        self.store.apply(
            [
                (i, 1, records.put(b"/k/%d" % i, 0, 1, bytes([i % 251]) * 1000, 0))
                for i in range(first, first + count)
            ]
        )

    def feed(self, peer: int) -> None:
        """Raft wants a state sent, again and again until one has arrived."""
        self.wanting.add(peer)
        self.snapshots.send_to(peer, 0)

    def _sent(self, peer: int, ok: bool) -> None:
        if ok:
            self.wanting.discard(peer)
        elif peer in self.wanting:
            self.world.at(RETRY_S, lambda: self.snapshots.send_to(peer, 0))

    def _send(self, peer: int, kind: bytes, data: bytes) -> bool:
        self.world.at(0.001, lambda: self.hosts[peer].snapshots.frame(self.member_id, data))
        return True

    def _sweep(self) -> None:
        self.world.at(1.0, self._sweep)
        self.snapshots.sweep()

    def state_replaced(self) -> None:
        """A snapshot was installed."""

    def wake(self) -> None:
        """No ticks here."""

    def directories(self) -> list[str]:
        """Copies of a state that a host keeps, but for its own and the one that it replaced."""
        found = [p.name for p in self.state.iterdir() if p.name.startswith("incoming")]
        outgoing = Path(self.settings.data_dir) / "outgoing"
        return found + ([p.name for p in outgoing.iterdir()] if outgoing.exists() else [])


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def hosts(world: World, tmp_path: Path) -> Iterator[dict[int, Host]]:
    found = {i: Host(world, i, tmp_path / str(i)) for i in (1, 2, 3)}
    for host in found.values():
        host.hosts = found
    found[1].put(50)
    found[3].put(50)
    yield found
    for host in found.values():
        host.snapshots.close()
        host.store.close()


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


def test_a_peer_that_refuses_them_and_asks_each_second_gets_few(world: World, hosts: dict[int, Host]) -> None:
    """Each cost a flush and a checkpoint of a host that was well, for as long as the peer lacked room."""
    hosts[2].raft.role = Role.LEADER
    for second in range(1, 61):
        hosts[1].snapshots.send_to(2, 0)
        world.run(float(second))
    assert 2 <= hosts[1].snapshots.failed <= 6


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

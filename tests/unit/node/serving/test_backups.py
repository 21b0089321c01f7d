"""Who gets one of a node's few backups when all are taken."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.wire import messages
from cluster.wire.messages import Status
from node.backup.build import Job
from node.links.fronts import FrontLink
from node.serving import backups
from node.serving.backups import _DRY_S, _MOST, Backup, Backups, Hold
from node.serving.streams import SLOW_AFTER_S
from tests.unit.machines import machine_on
from tests.unit.proxy.fakes import ManualLoop

STALL_S = 60.0
MARGIN = 200 << 20


class Node:
    """A node with all backups under way, none of which gets further than a client lets it."""

    def __init__(self) -> None:
        self.loop = ManualLoop()
        self.frames: list[bytes] = []
        self.link = FrontLink(b"front", self._frame, b"", 1)
        self.closed: list[int] = []
        self.begun: list[int] = []
        self.jobs: list[Job] = []
        # what is to be called once the checkpoint of each is made
        self.made: list[Callable[[Any], None]] = []
        self.loop.run_in_executor = self._in_a_thread  # type: ignore[attr-defined]
        node: Any = SimpleNamespace(
            loop=self.loop,
            machine=machine_on(),
            store=None,
            stopping=False,
            reads=SimpleNamespace(
                refuse=lambda link, rid, error: link.answer(rid, Status.ERROR, error.encode())
            ),
            settings=SimpleNamespace(
                data_dir="member/shard-0", min_free_disk_bytes=MARGIN,
                common=SimpleNamespace(client_stall_timeout_ms=STALL_S * 1000, shard_count=1),
            ),
            roster=SimpleNamespace(listed=list, table=SimpleNamespace(former=[])),
        )
        self.backups = Backups(node)
        for rid in range(1, _MOST + 1):
            source: Any = SimpleNamespace(close=lambda rid=rid: self.closed.append(rid))
            self.backups._held[self.link.identity, rid] = Hold(self.link, rid, source, self.loop.now)

    def _in_a_thread(self, executor: None, work: Callable[..., Any], *args: Any) -> Any:
        if not args:  # what gives back a disk's space: nobody waits for it
            return work()
        self.jobs += [arg for arg in args if isinstance(arg, Job)]
        return SimpleNamespace(add_done_callback=self._begins)

    def _begins(self, then: Callable[[Any], None]) -> None:
        self.begun.append(1)
        self.made.append(then)

    def _frame(self, parts: list[bytes]) -> bool:
        self.frames.append(parts[-1])
        return True

    def refused(self) -> list[int]:
        self.link.flush()
        frames, self.frames = self.frames, []
        return [
            rid
            for frame in frames
            for rid, status, _ in messages.decode_answers(frame)[1]
            if status == Status.ERROR
        ]

    def taken(self, rid: int, size: int) -> None:
        """A client has taken so much in all."""
        backup = self.backups._held[self.link.identity, rid]
        backup.credited, backup.moved_at = size, self.loop.now


@pytest.fixture
def node() -> Node:
    return Node()


def test_a_newcomer_is_refused_while_all_are_taken_as_they_should_be(node: Node) -> None:
    node.loop.now += SLOW_AFTER_S / 2
    node.backups.ask(node.link, 9, b"")
    assert (node.refused(), node.closed, node.begun) == ([9], [], [])


@pytest.mark.parametrize("trickle", [0, 1000])
def test_of_several_that_stall_the_one_that_has_had_nothing_for_longest_gives_way(
    node: Node, trickle: int
) -> None:
    node.loop.now += 3 * SLOW_AFTER_S
    for rid in (1, 2, 4):
        node.taken(rid, 100 << 20)
    node.taken(3, trickle)
    node.backups._held[node.link.identity, 3].moved_at -= 1
    node.backups.ask(node.link, 9, b"")
    assert (node.refused(), node.closed, node.begun) == ([3], [3], [1])


def test_one_that_stalls_ends_after_a_time_and_its_client_is_told(node: Node) -> None:
    node.loop.now += STALL_S - 1
    node.taken(2, 1)
    node.loop.now += 2
    node.backups.sweep()
    assert sorted(node.refused()) == sorted(node.closed) == [1, 3, 4]
    assert (node.backups.lives.count, node.backups.lives.sum) == (3, 3 * (STALL_S + 1))


def test_a_shard_whose_turn_comes_later_is_not_the_slow_one(node: Node) -> None:
    for _ in range(30):
        node.loop.now += SLOW_AFTER_S - 1
        for rid in range(1, _MOST + 1):
            node.backups.credit(node.link, rid, 0)
        node.backups.sweep()
        node.backups.ask(node.link, 9, b"")
    assert (set(node.refused()), node.closed, node.begun) == ({9}, [], [])


def test_one_that_is_cancelled_while_its_checkpoint_is_made_takes_no_place(node: Node) -> None:
    """It would have stood there, unread, until it was slow: who asks and cancels again and again would keep
    all places."""
    node.backups.end(node.link, 1)
    node.closed.clear()
    node.backups.ask(node.link, 9, b"")
    node.backups.end(node.link, 9)
    (made,) = node.made
    source = SimpleNamespace(
        close=lambda: node.closed.append(9), next_chunk=lambda size: b"c" * size, size_bytes=1 << 30
    )
    made(SimpleNamespace(exception=lambda: None, result=lambda: source))
    assert (node.closed, len(node.backups._held)) == ([9], _MOST - 1)
    assert not node.link.pending
    node.backups.ask(node.link, 10, b"")
    assert node.begun == [1, 1]


@pytest.mark.parametrize(
    ("free", "spare"), [(MARGIN, MARGIN * 5 // 4), (MARGIN - 1, MARGIN * 5 // 8), (1, MARGIN * 5 // 8)])
def test_a_backup_does_not_make_its_host_short_of_space(
        node: Node, monkeypatch: pytest.MonkeyPatch, free: int, spare: int) -> None:
    """A cluster of one host would refuse all puts until an operator disarms NOSPACE."""
    monkeypatch.setattr(backups, "free_bytes", lambda of: free)
    node.backups.ask(node.link, 9, b'["checkpoint-1"]')
    assert [job.spare_bytes for job in node.jobs] == [spare]


def test_where_no_margin_is_kept_a_backup_leaves_room_for_the_log(node: Node) -> None:
    node.backups._node.settings.min_free_disk_bytes = 0
    node.backups.ask(node.link, 9, b'["checkpoint-1"]')
    assert node.jobs[0].spare_bytes > 0


class _Streaming:
    """A node that sends one backup, whose front takes all at once; time passes as timers ask for."""

    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        self.sent: list[tuple[float, int]] = []  # when, bytes
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.ends: list[tuple[int, bytes]] = []  # status and body of an answer that ends it
        node: Any = SimpleNamespace(
            loop=SimpleNamespace(time=lambda: self.now, call_later=self._later),
            machine=SimpleNamespace(perf_counter=lambda: self.now),
            raft=SimpleNamespace(last_index=0, term=1),
            serve=SimpleNamespace(ranges=SimpleNamespace(count=0)),
            settings=SimpleNamespace(data_dir=str(folder)),
            mark_dirty=lambda link: None,
            reads=SimpleNamespace(
                refuse=lambda link, rid, error: self._answer(rid, Status.ERROR, error.encode())),
            stopping=True,  # what it has on the disk is freed at once
        )
        self.node = node
        self.backups = Backups(node)
        link: Any = SimpleNamespace(identity=b"front", alive=True, answer=self._answer)
        self.backup = Backup(link, 1, {}, folder / "rows", 0.0)
        self.backup.size_bytes = 1 << 20
        self.backup.pipe, self.writes = os.pipe()
        fcntl.fcntl(self.writes, fcntl.F_SETPIPE_SZ, self.backup.size_bytes)
        os.set_blocking(self.backup.pipe, False)
        self.backups._running[b"front", 1] = self.backup

    def write(self, size: int) -> None:
        """The process writes so much, and ends."""
        os.write(self.writes, bytes(size))
        os.close(self.writes)

    def _later(self, after_s: float, work: Callable[..., None], *args: Any) -> Any:
        timer = self.now + after_s, lambda: work(*args)
        self.timers.append(timer)
        return SimpleNamespace(cancel=lambda: self.timers.remove(timer))

    def _answer(self, rid: int, status: int, body: bytes) -> None:
        if status == Status.PARTIAL:
            self.sent.append((self.now, len(body) - 8))
            self.backup.credited = self.backup.sent
        else:
            self.ends.append((status, body))

    def run(self, busy: bool) -> None:
        """To its end, with requests between any two chunks or without any for long."""
        self.backups._others.about()
        self.now += 1.0
        self.node.raft.last_index += busy
        self.backups._pump(self.backup)
        while self.timers:
            self.now, work = self.timers.pop(0)
            self.node.raft.last_index += busy
            work()


@pytest.mark.parametrize(("busy", "size", "every_s"), [(False, 128 << 10, 0.001), (True, 64 << 10, 0.001)])
def test_beside_requests_a_backup_goes_out_slower_and_in_smaller_chunks(
    tmp_path: Path, busy: bool, size: int, every_s: float
) -> None:
    streaming = _Streaming(tmp_path)
    streaming.write(1 << 20)
    streaming.run(busy)
    assert [sent for _, sent in streaming.sent] == [size] * ((1 << 20) // size)
    gaps = {round(after - before, 6) for (before, _), (after, _) in pairwise(streaming.sent)}
    assert gaps == {every_s}
    assert streaming.backups.completed == 1


def test_a_pipe_that_is_empty_is_looked_at_again(tmp_path: Path) -> None:
    streaming = _Streaming(tmp_path)
    streaming.backups._pump(streaming.backup)
    ((at, look),) = streaming.timers
    assert (at, streaming.sent, streaming.ends) == (_DRY_S, [], [])
    streaming.write(1 << 20)
    streaming.timers.clear()
    look()
    while streaming.timers:
        streaming.now, look = streaming.timers.pop(0)
        look()
    assert sum(size for _, size in streaming.sent) == 1 << 20
    assert streaming.backups.completed == 1


@pytest.mark.parametrize("written", [0, 1000, (1 << 20) - 1])
def test_a_file_that_comes_short_is_no_backup(tmp_path: Path, written: int) -> None:
    """Its process was killed, or found out that rows were missing."""
    streaming = _Streaming(tmp_path)
    streaming.write(written)
    streaming.run(busy=False)
    ((status, body),) = streaming.ends
    assert status == Status.ERROR
    assert f"wrote {written} bytes of {1 << 20}".encode() in body
    assert streaming.backups.completed == 0


def test_one_that_ends_while_its_pipe_is_empty_is_not_looked_at_again(tmp_path: Path) -> None:
    streaming = _Streaming(tmp_path)
    streaming.backups._pump(streaming.backup)
    streaming.backups.end(streaming.backup.link, 1)
    assert streaming.timers == []
    streaming.backups.credit(streaming.backup.link, 1, 1 << 20)
    assert (streaming.sent, streaming.ends, streaming.timers) == ([], [], [])


@pytest.mark.parametrize("behind", [0, 1])
def test_a_client_that_has_taken_all_is_not_blamed_for_a_pause_of_the_process(
    tmp_path: Path, behind: int
) -> None:
    streaming = _Streaming(tmp_path)
    backup = streaming.backup
    backup.sent, backup.credited = 1000, 1000 - behind
    streaming.now = 3 * SLOW_AFTER_S
    streaming.backups._pump(backup)
    assert (backup.began, backup.moved_at) == ((0.0, 0.0) if behind else (streaming.now, streaming.now))
    os.close(streaming.writes)
    os.close(backup.pipe)

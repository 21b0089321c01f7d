"""What node 0 does about files that cannot be written or removed."""

from __future__ import annotations

import errno
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from cluster.order.log import Cut, Fold, encode_cut
from cluster.order.passing import Piece
from cluster.raft import Entry, EntryKind
from node.storage.kept import KeptFiles, Span
from node.upkeep.log.floors import Floors
from node.upkeep.space.keeping import Keeping

VOTERS = (1, 2, 3)
RECORDS = 2000
FULL = OSError(errno.ENOSPC, "No space left on device")


class Files(KeptFiles):
    """Those of a disk that may be full."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.full = self.stuck = False
        self.writes: list[float] = []
        self.removals: list[float] = []
        self.now: Callable[[], float] = lambda: 0.0

    def write(self, piece: Piece) -> Span:
        self.writes.append(self.now())
        span = super().write(piece)
        if self.full:
            raise FULL  # and what was written is there
        return span

    def remove(self, spans: list[Span]) -> None:
        self.removals.append(self.now())
        if self.stuck:
            raise FULL
        super().remove(spans)


class World:
    """Node 0 of host 1; nobody has applied anything of shard 1."""

    def __init__(self, folder: Path, most: int = 1 << 20) -> None:
        self.now, self.files, self.floors = 0.0, Files(folder), Floors(1, 2)
        self.files.now = lambda: self.now
        entries = [Entry(i, 1, EntryKind.RECORD, encode_cut({2: Cut(i, 1, i)}))
                   for i in range(1, RECORDS + 1)]
        self.begins = 0
        node: Any = SimpleNamespace(
            settings=SimpleNamespace(order_kept_bytes=most, common=SimpleNamespace(shard_count=2)),
            machine=SimpleNamespace(thread=lambda name: None),
            loop=SimpleNamespace(time=lambda: self.now, call_soon=lambda call, *given: call(*given),
                                 run_in_executor=self.run),
            raft=SimpleNamespace(log_entries=lambda first, last, size: entries[first - 1 : last]),
            log=SimpleNamespace(snapshot_position=lambda: SimpleNamespace(index=self.begins)),
            store=SimpleNamespace(durable_position=SimpleNamespace(order_index=RECORDS)),
            applied_index=RECORDS,
        )
        self.keeping = Keeping(node, self.files, self.floors, lambda: (0, Fold()))

    def run(self, thread: object, work: Callable[..., object], *given: object) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(work(*given))
        except OSError as error:
            done.set_exception(error)
        return done

    def looks(self, seconds: float) -> list[str]:
        """What is logged meanwhile."""
        with capture_logs() as lines:
            for _ in range(round(seconds * 10)):
                self.keeping.look(RECORDS // 2, VOTERS)
                self.now += 0.1
        return [line["event"] for line in lines]

    def there(self) -> int:
        """Bytes of files."""
        return sum(path.stat().st_size for path in self.files._folder.iterdir())


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "kept")


def test_a_failed_write_is_tried_again_after_ever_longer_pauses(world: World) -> None:
    world.files.full = True
    said = world.looks(300.0)
    pauses = [b - a for a, b in zip(world.files.writes, world.files.writes[1:], strict=False)]
    assert pauses == pytest.approx([5, 10, 20, 40, 60, 60, 60], abs=0.3)
    assert len(said) <= 2 * 6
    assert world.keeping.shards == []
    world.files.full = False
    world.looks(61.0)
    assert world.keeping.shards == [1]
    assert world.floors._kept[1] == {1: (1, 1500)}
    assert world.keeping.bytes == world.there()


def test_what_a_failed_write_has_left_counts_until_it_is_removed(world: World) -> None:
    world.files.full = world.files.stuck = True
    world.looks(100.0)
    assert len(world.files.writes) == 1, "no other file while one is there that counts for nobody"
    assert len(world.files.removals) == 4
    assert world.keeping.bytes == pytest.approx(world.there(), abs=64)
    assert world.there() > 0
    world.files.full = world.files.stuck = False
    world.looks(61.0)
    assert len(list(world.files._folder.iterdir())) == 1
    assert world.keeping.bytes == world.there()


def test_a_file_that_cannot_be_removed_counts_and_is_tried_again(world: World) -> None:
    world.looks(1.0)
    size = world.keeping.bytes
    assert size == world.there() > 0
    world.files.stuck = True
    for member_id in VOTERS:
        other = Floors(member_id, 2)
        other.own_is(1, RECORDS)
        world.floors.came(member_id, other.encode(9))
    assert len(world.looks(100.0)) <= 3
    assert (world.keeping.bytes, world.keeping.shards) == (size, [])
    assert len(world.files.removals) == 5
    world.files.stuck = False
    world.looks(61.0)
    assert world.keeping.bytes == world.there() == 0


def test_without_room_for_files_nothing_is_said_of_them(tmp_path: Path) -> None:
    world = World(tmp_path / "kept", most=0)
    assert world.looks(5.0) == []
    assert world.files.writes == []


def test_what_was_kept_for_a_shard_goes_once_that_is_dropped(world: World) -> None:
    """A shard that forms has no majority at first, and may be dropped without one."""
    world.floors.follow((1, 5))
    world.looks(1.0)
    assert world.keeping.shards == [1, 5]
    world.floors.follow((1,))
    world.looks(1.0)
    assert world.keeping.shards == [1]
    assert world.keeping.bytes == world.there()

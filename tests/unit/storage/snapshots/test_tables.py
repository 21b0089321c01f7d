"""Tables of a state that are damaged, or cannot be checked, at its sender or its receiver."""

from __future__ import annotations

import asyncio
import errno
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.effects import records
from cluster.settings import Common, NodeSettings
from node.storage import SnapshotRefused, StateStore, StorageCorruption, snapshot
from node.storage.errors import Scarce
from node.storage.snapshot import SnapshotSink, SnapshotSource
from node.upkeep.log.flushes import Flushes
from node.upkeep.space import giving_back
from node.upkeep.space.defragments import Defragments
from node.upkeep.space.disks import Logged
from node.upkeep.space.giving_back import GivingBack
from tests.unit.machines import machine_on
from tests.unit.storage.conftest import OpenStore
from tests.unit.storage.snapshots.sending import receive, sent
from tests.unit.storage.state.stores import damage_table, do


def test_a_table_that_is_damaged_at_its_sender_is_refused(open_store: OpenStore, tmp_path: Path) -> None:
    """The stream's own checksums are right: they are of what the sender has."""
    store, good = open_store(), open_store("donor")
    do(store, records.put(b"old", 0, 1, b"", 0))
    do(good, *(records.put(b"%05d" % i, 0, 1, os.urandom(100), 0) for i in range(2000)))
    do(good, records.put(b"last", 0, 1, b"", 0))
    good.close()
    damage_table(good)
    damaged = open_store("donor")
    sink = receive(store, sent(damaged, tmp_path))
    with pytest.raises(SnapshotRefused, match=r"^it came with a damaged file: .*mismatch.* in 0\d+\.sst"):
        sink.finish()
    sink.abandon()
    assert [key for key, _ in store.scan(b"\0", b"\0")] == [b"old"]
    source = SnapshotSource.create(damaged, tmp_path / "outgoing")
    with pytest.raises(StorageCorruption, match=r"checksum mismatch.*\.sst"):
        source.check()
    source.close()


def test_a_table_that_is_damaged_below_a_range_deletion_is_refused(
    open_store: OpenStore, tmp_path: Path
) -> None:
    """No read comes there; a compaction of the receiver would, and end it for good."""
    donor = open_store("donor", 64 << 20)  # nothing is merged
    for _ in range(30):
        do(donor, *(records.put(b"%0100d" % i, 0, 1, b"", 0) for i in range(100)))
    donor.close()
    store = open_store("donor", 64 << 20)
    do(store, records.compact(store.revision - 1))
    while not store.compaction_step(10**6):
        pass
    store.close()
    damage_table(donor, b"r" + bytes(6) + b"\x06")
    donor = open_store("donor", 64 << 20)
    assert list(donor.rows(b"", b"\xff")), "what is shown can be read"
    source = SnapshotSource.create(donor, tmp_path / "outgoing")
    before = sorted(source.directory.iterdir())
    where = re.escape(str(source.directory))
    with pytest.raises(StorageCorruption, match=rf"^{where}: Corruption: .* in {where}/0\d+\.sst"):
        source.check()
    assert sorted(source.directory.iterdir()) == before
    source.close()
    sink = receive(open_store(), sent(donor, tmp_path))
    with pytest.raises(SnapshotRefused, match=r"^it came with a damaged file: .*mismatch.* in 0\d+\.sst"):
        sink.finish()
    sink.abandon()


def test_a_check_that_cannot_be_made_tells_no_damage(
    donor: StateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SnapshotSource.create(donor, tmp_path / "outgoing")
    text = "IO error: While open a file for random read: 000008.sst: Too many open files"

    def fails(path: str, options: object) -> None:
        raise Exception(text)

    def leaves_out(path: str, options: object) -> None:
        Path(path, "LOG").write_text(f"[WARN] [db/repair.cc:524] Table #8: ignoring {text}\n")

    for repair in (fails, leaves_out):
        with monkeypatch.context() as patch:
            patch.setattr(snapshot, "Rdict", SimpleNamespace(repair=repair))
            with pytest.raises(OSError, match=r"cannot be checked: .*Too many open files"):
                source.check()
    source.check()
    source.close()


@pytest.mark.parametrize("missing", [["symlink_to"], ["symlink_to", "hardlink_to"]])
def test_tables_are_checked_where_the_file_system_has_no_links(
    open_store: OpenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: list[str]
) -> None:
    """Each state was refused there for ever."""

    def none_here(*paths: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    for link in missing:
        monkeypatch.setattr(Path, link, none_here)
    good = open_store("donor")
    do(good, *(records.put(b"%05d" % i, 0, 1, os.urandom(100), 0) for i in range(2000)))
    receive(open_store(), sent(good, tmp_path)).finish()
    good.close()
    damage_table(good)
    source = SnapshotSource.create(open_store("donor"), tmp_path / "outgoing")
    before = {file: file.read_bytes() for file in source.directory.iterdir()}
    with pytest.raises(StorageCorruption, match=r"checksum mismatch.*\.sst"):
        source.check()
    assert {file: file.read_bytes() for file in source.directory.iterdir()} == before
    source.close()


def damaged_and_news(
    donor: StateStore, open_store: OpenStore, tmp_path: Path
) -> tuple[StateStore, SnapshotSink]:
    """A state that a rewrite finds damaged, and one that may take its place."""
    old = open_store()
    do(old, *(records.put(b"%05d" % i, 0, 1, os.urandom(4000), 0) for i in range(100)))
    old.close()
    damage_table(old)
    store = open_store()
    do(store, *(records.put(b"%05d" % i, 0, 1, b"", 0) for i in range(0, 100, 5)))
    sink = receive(store, sent(donor, tmp_path))
    sink.finish()
    return store, sink


@pytest.mark.parametrize("before", [False, True])
def test_damage_that_a_rewrite_meets_while_an_install_goes_on_is_nobodys(
    donor: StateStore, open_store: OpenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    """It ended the host, though its new state was whole."""
    store, sink = damaged_and_news(donor, open_store, tmp_path)
    switch = StateStore.switch_to
    met: list[BaseException | None] = []
    if before:  # RocksDB flushes no such database any more
        with pytest.raises(StorageCorruption):
            store.defragment()

    def switch_to(self: StateStore, name: str) -> None:
        with ThreadPoolExecutor() as thread:
            met.append(thread.submit(self._defragmenting.run, self.database, self.path).exception())
        switch(self, name)

    monkeypatch.setattr(StateStore, "switch_to", switch_to)
    store.install(sink)
    assert met == [None]
    assert store.position == donor.position


PARTS = ["upkeep", "a client", "a flush"]


def begin(
    part: str,
    loop: asyncio.AbstractEventLoop,
    store: StateStore,
    work: Callable[[bool], None],
    fail: Callable[[str], None],
    went_on: Callable[[], None],
) -> None:
    """Have this part of a node do its work, in a thread."""
    node: Any = SimpleNamespace(
        machine=machine_on(loop), loop=loop, settings=NodeSettings(Common(1, 1, "h", 1, 1, (), ""), 0, ""),
        raft=SimpleNamespace(term=1), stopping=False, fail=fail, store=store, order_index=1 << 60,
        applied_index=0, mark_dirty=lambda link: None,
        upkeep=SimpleNamespace(
            quota=SimpleNamespace(in_use=lambda: None),
            rewriting=SimpleNamespace(rewrite=lambda: work(False))),
    )  # fmt: skip
    if part == "upkeep":
        back = GivingBack(node.machine, fail)
        back.want(work)
        back.want(lambda again: went_on())
    elif part == "a client":
        answers: Any = SimpleNamespace(alive=True, answer=lambda *answer: went_on())
        Defragments(node).ask(answers, 1)
    else:
        flushing: Any = SimpleNamespace(
            position=store.position,
            durable_position=store.durable_position,
            retired=store.retired,
            flush=lambda: work(False),
        )
        flushes = Flushes(
            node, node.settings, node.machine, flushing, logged=Logged(), flushed=went_on)  # fmt: skip
        flushes.owe()
        flushes.hasten(wanted=False)


@pytest.mark.parametrize("part", PARTS)
def test_a_lack_of_files_that_work_aside_meets_starts_the_node_again(
    donor: StateStore, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """It may pass: another start helps. The host stopped for good."""
    monkeypatch.setattr(giving_back, "_PAUSES", 0)
    met: list[object] = []

    def work(again: bool) -> None:
        raise Scarce("Too many open files")

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: met.append(context["exception"]))
        begin(part, loop, donor, work, met.append, lambda: met.append("it went on"))
        while not met:
            await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(run(), 30))
    assert [type(error) for error in met] == [Scarce]


@pytest.mark.parametrize("installs", [True, False])
@pytest.mark.parametrize("part", PARTS)
def test_damage_that_was_met_just_before_an_install_is_nobodys(
    donor: StateStore,
    open_store: OpenStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    installs: bool,
) -> None:
    """The host heard of it behind the install, and ended."""
    store, sink = damaged_and_news(donor, open_store, tmp_path)
    ended: list[str] = []
    went_on: list[bool] = []
    monkeypatch.setattr(giving_back, "_PAUSES", 0)
    meets_it: Callable[[], object] = store.defragment
    if part == "a flush":
        with pytest.raises(StorageCorruption):
            store.defragment()
        meets_it = store.flush

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: ended.append(str(context["exception"])))

        def work(again: bool = False) -> None:
            try:
                meets_it()
            except StorageCorruption:
                if installs:
                    loop.call_soon_threadsafe(store.install, sink)
                raise

        begin(part, loop, store, work, ended.append, lambda: went_on.append(True))
        while not (went_on or ended):
            await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(run(), 30))
    assert bool(went_on) is installs
    assert bool(ended) is not installs
    if not installs:
        store.install(sink)  # the damaged one cannot be closed in order


@pytest.mark.parametrize("where", ["opening", "reading", "a full disk"])
def test_an_error_that_is_no_damage_tells_none_where_the_file_system_has_no_links(
    donor: StateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A check that found no file to open any more ended the sender's host."""
    text = "IO error: While open a file for random read: 000008.sst: Too many open files"
    if where == "a full disk":
        text = "IO error: No space left on device: While appending to file: LOG"

    def none_here(*paths: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    def fails(*_: object, **__: object) -> Any:
        raise Exception(text)

    source = SnapshotSource.create(donor, tmp_path / "outgoing")
    for link in ("symlink_to", "hardlink_to"):
        monkeypatch.setattr(Path, link, none_here)
    source.check()
    with monkeypatch.context() as patch:
        if where == "reading":
            opened = SimpleNamespace(iter=fails, close=lambda: None)
            patch.setattr(snapshot, "open_to_read", lambda *_: opened)
        else:
            patch.setattr("node.storage.opening.Rdict", fails)
        with pytest.raises(OSError, match=rf"cannot be checked: {text}"):
            source.check()
    source.check()
    source.close()


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPROTO])
def test_drivers_tell_in_several_ways_that_they_have_no_links(
    donor: StateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def none_here(*paths: Path) -> None:
        raise OSError(code, os.strerror(code))

    source = SnapshotSource.create(donor, tmp_path / "outgoing")
    for link in ("symlink_to", "hardlink_to"):
        monkeypatch.setattr(Path, link, none_here)
    source.check()
    source.close()


def test_links_that_cannot_be_made_tell_no_damage(
    donor: StateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*paths: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    source = SnapshotSource.create(donor, tmp_path / "outgoing")
    monkeypatch.setattr(Path, "symlink_to", full)
    with pytest.raises(OSError, match="No space left"):
        source.check()
    source.close()

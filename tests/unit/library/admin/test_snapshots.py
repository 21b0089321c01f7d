"""What a snapshot that is given up leaves behind: no file, and no stream."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import muster_client as m
import pytest
from muster_client.admin import part, snapshots
from muster_client.pb import rpc_pb2 as pb
from muster_client.wire import engine
from muster_client.wire.calls import Caller

from tests.unit.library.scripted import say_nothing, scripted, until

Context = grpc.ServicerContext
PAGE = b"p" * 512
WHOLE = PAGE + hashlib.sha256(PAGE).digest()


class Host:
    """Sends a part of a snapshot, and the rest if ``whole``."""

    def __init__(self, *, whole: bool) -> None:
        self._whole = whole
        self.begun, self.ended = threading.Event(), threading.Event()

    def methods(self) -> dict[str, Any]:
        return {"Maintenance/Snapshot": self._answers}

    def _answers(self, request: pb.SnapshotRequest, context: Context) -> Iterator[pb.SnapshotResponse]:
        context.add_callback(self.ended.set)
        yield pb.SnapshotResponse(blob=WHOLE[:100], remaining_bytes=len(WHOLE) - 100)
        self.begun.set()
        if not self._whole:
            say_nothing(context)
        yield pb.SnapshotResponse(blob=WHOLE[100:])


def test_a_snapshot_gets_its_name_when_it_is_whole(tmp_path: Path) -> None:
    async def main() -> m.Saved:
        async with m.Client(address) as client:
            return await client.maintenance.snapshot(tmp_path / "s.db")

    with scripted(Host(whole=True).methods()) as address:
        assert asyncio.run(main()).size == len(WHOLE)
    assert [one.name for one in tmp_path.iterdir()] == ["s.db"]
    assert (tmp_path / "s.db").read_bytes() == WHOLE


def test_one_that_is_cancelled_leaves_no_file_and_no_stream(tmp_path: Path) -> None:
    host = Host(whole=False)

    async def main() -> None:
        async with m.Client(address) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await client.maintenance.snapshot(tmp_path / "s.db")
            assert host.begun.is_set()
            assert not list(tmp_path.iterdir())
            await until(host.ended.is_set)

    with scripted(host.methods()) as address:
        asyncio.run(main())


def test_of_two_saves_to_one_path_the_second_is_refused(tmp_path: Path) -> None:
    """It emptied the file of the first, which was said to be saved."""
    begun, goes_on = threading.Event(), threading.Event()

    def answers(request: pb.SnapshotRequest, context: Context) -> Iterator[pb.SnapshotResponse]:
        yield pb.SnapshotResponse(blob=WHOLE[:100], remaining_bytes=len(WHOLE) - 100)
        begun.set()
        goes_on.wait(5)
        yield pb.SnapshotResponse(blob=WHOLE[100:])

    async def main() -> None:
        async with m.Client(address) as client:
            first = asyncio.create_task(client.maintenance.snapshot(tmp_path / "s.db"))
            await until(begun.is_set)
            with pytest.raises(BlockingIOError, match=r"another save writes it: '.*s\.db\.part'"):
                await client.maintenance.snapshot(tmp_path / "s.db")
            goes_on.set()
            await first

    with scripted({"Maintenance/Snapshot": answers}) as address:
        asyncio.run(main())
    assert [one.name for one in tmp_path.iterdir()] == ["s.db"]
    assert (tmp_path / "s.db").read_bytes() == WHOLE


def test_a_part_that_has_got_its_name_meanwhile_is_not_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The saver before this one had it open, and was done just then."""
    name, saved, locks = tmp_path / "s.db.part", tmp_path / "s.db", fcntl.flock
    name.write_bytes(WHOLE)

    def lock(descriptor: int, operation: int) -> None:
        if not saved.exists():
            name.rename(saved)
        locks(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", lock)
    os.close(part.opened(name))
    assert saved.read_bytes() == WHOLE
    assert name.read_bytes() == b""


def lock_nothing(descriptor: int, operation: int) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def test_a_file_system_without_locks_takes_snapshots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lock_nothing)
    os.close(part.opened(tmp_path / "s.db.part"))


@pytest.mark.parametrize("locks", [True, False])
def test_a_save_names_and_removes_its_own_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    """An operator removed the part as another save was refused; or there are no locks. Half of the other's
    file got the name."""
    name = tmp_path / "s.db.part"
    if not locks:
        monkeypatch.setattr(fcntl, "flock", lock_nothing)
    one, two = part.opened(name), None
    if locks:
        name.unlink()
    two = part.opened(name)
    with pytest.raises(OSError, match="it is another file now"):
        part.placed(name, one, tmp_path / "s.db")
    part.dropped(name, one)
    assert [found.name for found in tmp_path.iterdir()] == ["s.db.part"]
    part.placed(name, two, tmp_path / "s.db")
    part.dropped(name, two)
    assert [found.name for found in tmp_path.iterdir()] == ["s.db"]
    os.close(one)
    os.close(two)


def test_a_part_that_is_no_file_to_write_holds_up_no_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A FIFO did until it had a reader; a file system whose files look different each time, for ever."""
    os.mkfifo(tmp_path / "f.part")
    with pytest.raises(OSError, match="No such device"):
        part.opened(tmp_path / "f.part")
    monkeypatch.setattr(os.path, "samestat", lambda one, other: False)
    with pytest.raises(BlockingIOError):
        part.opened(tmp_path / "s.part")


def test_a_disk_that_became_read_only_leaves_no_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unlink(name: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    saving = snapshots._Part(tmp_path / "s.db")
    saving.begin()
    file = saving._file
    assert file is not None
    monkeypatch.setattr(os, "unlink", unlink)
    saving.drop()
    assert file.closed


def test_a_part_that_is_left_over_gives_its_file_to_no_snapshot(tmp_path: Path) -> None:
    """Others could read a snapshot, which has hashes of passwords, by its mode or their descriptor."""
    left = tmp_path / "s.db.part"
    left.write_bytes(b"old")
    left.chmod(0o666)

    async def main() -> None:
        async with m.Client(address) as client:
            await client.maintenance.snapshot(tmp_path / "s.db")

    with left.open("rb") as reader, scripted(Host(whole=True).methods()) as address:
        asyncio.run(main())
        assert reader.read() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["s.db"]
    assert (tmp_path / "s.db").stat().st_mode & 0o777 == 0o600


def test_a_part_that_is_a_link_is_not_written(tmp_path: Path) -> None:
    for place in (tmp_path / "other", tmp_path / "none"):
        link = tmp_path / "s.db.part"
        link.symlink_to(place)
        with pytest.raises(OSError, match="symbolic links"):
            part.opened(link)
        link.unlink()
    assert not list(tmp_path.iterdir())


def open_files() -> set[str]:
    found = set()
    for one in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{one}"))
        except OSError:
            continue
    return found


def test_one_that_is_cancelled_while_its_file_is_opened_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread does that, which nothing cancels."""
    begun, opens = threading.Event(), os.open

    def slow(path: Any, *args: Any, **kwargs: Any) -> int:
        if str(path).endswith(".part"):
            begun.set()
            time.sleep(0.3)
        return opens(path, *args, **kwargs)

    async def main() -> None:
        async with m.Client(address) as client:
            saving = asyncio.create_task(client.maintenance.snapshot(tmp_path / "s.db"))
            await until(begun.is_set)
            saving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await saving
            await asyncio.sleep(0.5)
            assert not list(tmp_path.iterdir())
            assert not [one for one in open_files() if one.startswith(str(tmp_path))]

    monkeypatch.setattr(os, "open", slow)
    with scripted(Host(whole=False).methods()) as address:
        asyncio.run(main())


def test_one_that_cannot_get_its_name_leaves_none(tmp_path: Path) -> None:
    (tmp_path / "s.db").mkdir()

    async def main() -> None:
        async with m.Client(address) as client:
            with pytest.raises(IsADirectoryError):
                await client.maintenance.snapshot(tmp_path / "s.db")

    with scripted(Host(whole=True).methods()) as address:
        asyncio.run(main())
    assert [one.name for one in tmp_path.iterdir()] == ["s.db"]


def test_a_stream_ends_whose_reader_is_cancelled_as_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has begun, and its reader is not told any more."""
    opens = Caller.open

    async def main() -> None:
        here = asyncio.get_running_loop()

        def opened(caller: Caller, *args: Any, **kwargs: Any) -> Any:
            call, seen = opens(caller, *args, **kwargs), threading.Event()

            def cancel() -> None:
                reading.cancel()
                here.call_later(0.05, seen.set)

            here.call_soon_threadsafe(cancel)
            assert seen.wait(5)
            return call

        monkeypatch.setattr(Caller, "open", opened)
        async with m.Client(address) as client:
            reading: asyncio.Future[Any] = asyncio.ensure_future(anext(client.raw.snapshot()))
            with pytest.raises(asyncio.CancelledError):
                await reading
            line = client._caller.connections._opened[0].line
            await until(lambda: line is not None and not line._streams)

    with scripted(Host(whole=False).methods()) as address:
        asyncio.run(main())


def test_a_reader_is_cancelled_in_the_turn_in_which_its_answer_comes() -> None:
    async def main() -> None:
        async def read() -> str:
            asyncio.get_running_loop().call_soon(reading.cancel)
            return "answer"

        async def goes_on() -> None:
            call: Any = SimpleNamespace(read=read)
            await snapshots._next(call, 5.0)
            await asyncio.sleep(0)

        reading = asyncio.create_task(goes_on())
        await asyncio.wait((reading,), timeout=2)
        assert reading.cancelled()

    asyncio.run(main())


def test_a_login_that_is_not_answered_blames_no_stream() -> None:
    def login(request: pb.AuthenticateRequest, context: Context) -> Any:
        say_nothing(context)

    async def main() -> None:
        async with m.Client(address, user="u", password="p", timeout=0.3) as client:
            await engine.run(client._caller.connections.pick(None))  # the time is the login's alone
            with pytest.raises(m.DeadlineExceeded, match="login"):
                await anext(client.raw.snapshot())

    with scripted({"Auth/Authenticate": login}) as address:
        asyncio.run(main())

"""The log file is set aside when it is large, by whoever does it, and no line is lost."""

from __future__ import annotations

import asyncio
import errno
import gzip
import io
import os
import resource
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog

from tools.muster.config import rotation
from tools.muster.config.parse import ConfigError
from tools.muster.config.rotation import Rotator, rotate, rotating, rotation_of
from tools.muster.host import logs as supervisor_logs
from tools.muster.machine import logs
from tools.muster.machine.logfile import LogFile
from tools.muster.machine.process.crash import end_process

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
ASIDE = "muster-2026-01-02T03-04-05.678.log"


def say(log: LogFile, line: str) -> None:
    log.write(line)
    log.flush()


def test_every_process_goes_on_in_a_new_file_when_the_old_one_was_renamed(tmp_path: Path) -> None:
    path = tmp_path / "muster.log"
    one, other = LogFile(str(path)), LogFile(str(path))
    say(one, "a\n")
    say(other, "b\n")
    os.rename(path, tmp_path / "aside")
    say(other, "c\n")
    say(one, "d\n")
    assert (tmp_path / "aside").read_text() == "a\nb\n"
    assert path.read_text() == "c\nd\n"
    path.unlink()
    say(one, "e\n")
    assert path.read_text() == "e\n"


@pytest.mark.parametrize("mode", [0o640, 0o644, 0o600, 0o660])
def test_a_new_file_is_as_open_to_others_as_the_old_one(tmp_path: Path, mode: int) -> None:
    """A shipper of another user reads on; after its start a host's umask is 0077."""
    path, before = tmp_path / "muster.log", os.umask(0o077)
    try:
        one, other = LogFile(str(path)), LogFile(str(path))
        path.chmod(mode)
        for _ in range(2):
            os.rename(path, tmp_path / "aside")
            say(other, "a\n")
            assert path.stat().st_mode & 0o777 == mode
            path.chmod(mode & 0o700)
            say(one, "b\n")
            assert path.stat().st_mode & 0o777 == mode & 0o700, "only one's maker sets it"
            path.chmod(mode)
    finally:
        os.umask(before)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
def test_a_new_file_belongs_to_whom_the_old_one_belonged(tmp_path: Path) -> None:
    path = tmp_path / "muster.log"
    log = LogFile(str(path))
    os.chown(path, 12345, 23456)
    path.chmod(0o640)
    os.rename(path, tmp_path / "aside")
    say(log, "a\n")
    made = path.stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o777) == (12345, 23456, 0o640)


def test_where_no_owner_can_be_given_the_mode_still_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(fd: int, uid: int, gid: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refused)
    path = tmp_path / "muster.log"
    log = LogFile(str(path))
    path.chmod(0o666)
    os.rename(path, tmp_path / "aside")
    say(log, "a\n")
    assert path.stat().st_mode & 0o777 == 0o666


def test_a_line_in_parts_leaves_as_one(tmp_path: Path) -> None:
    path = tmp_path / "muster.log"
    log = LogFile(str(path))
    log.write("one")
    assert path.read_text() == ""
    say(log, "\n")
    assert path.read_text() == "one\n"


def test_a_full_disk_costs_no_line_that_comes_once_there_is_room(tmp_path: Path) -> None:
    """It was glued to the beginning of a line that the disk had taken: neither was JSON."""
    path = tmp_path / "muster.log"
    log, before = LogFile(str(path)), resource.getrlimit(resource.RLIMIT_FSIZE)
    say(log, "first\n")
    for lines in (["a torn line\n", "a lost line\n"], ["torn again\n"]):
        most = path.stat().st_size + 4
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))  # bytes of a file
        try:
            for line in lines:
                say(log, line)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        say(log, "later\n")
    assert path.read_text() == "first\na to\nlater\ntorn\nlater\n"
    say(log, "last\n")
    assert path.read_text().endswith("later\nlast\n")


def test_a_folder_that_is_gone_costs_nobody_but_the_log(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = LogFile(str(folder / "muster.log"))
    (folder / "muster.log").unlink()
    folder.rmdir()
    say(log, "x\n")
    with pytest.raises(FileNotFoundError):
        LogFile(str(folder / "muster.log"))


class Room:
    """What is free on the disk of the log file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free, self.spent, self.looks = 1 << 40, 0, 0
        monkeypatch.setattr("tools.muster.config.rotation.shutil.disk_usage", self._usage)

    def _usage(self, folder: Path) -> SimpleNamespace:
        self.looks += 1
        self.free -= self.spent
        return SimpleNamespace(free=self.free)


class Full(io.RawIOBase):
    """A file on a full disk."""

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_lines_that_cannot_be_written_stop_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    configured, full = structlog.get_config(), io.BufferedWriter(Full())
    try:
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(full, line_buffering=True))
        logs.configure("muster/node", "info", "json", ("stderr",))
        for log in (structlog.get_logger(), supervisor_logs.configure(["stderr"], "info", "json")):
            for n in range(1000):  # more than a buffer
                log.info("a line", n=n)
        codes: list[int] = []
        monkeypatch.setattr(os, "_exit", codes.append)
        end_process(3)
        assert codes == [3]
    finally:
        structlog.configure(**configured)


@pytest.mark.parametrize(
    ("names", "outs", "errs", "files"),
    [
        ((), 0, 1, 0),
        (("default", "default"), 0, 1, 0),
        (("stderr", "systemd/journal", "stderr"), 0, 1, 0),
        (("stdout", "FILE", "stdout", "FILE", "stderr"), 1, 1, 1),
        (("stderr", "FILE", "/dev/null"), 0, 0, 0),
    ],
)
def test_each_output_gets_a_line_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], names: tuple[str, ...], outs: int, errs: int,
    files: int,
) -> None:
    """As etcd merges them; ``/dev/null`` among them discards all."""
    path = tmp_path / "muster.log"
    outputs = logs.Outputs([str(path) if name == "FILE" else name for name in names])
    outputs.write("line\n")
    outputs.flush()
    said = capsys.readouterr()
    written = path.read_text() if path.exists() else ""
    assert (said.out, said.err, written) == ("line\n" * outs, "line\n" * errs, "line\n" * files)


def test_a_file_that_is_too_large_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "muster.log"
    rotation = rotation_of(["stderr", str(path)], '{"maxsize": 1}')
    log = LogFile(str(path))
    say(log, "x" * ((1 << 20) - 1))
    rotate(rotation, NOW)
    assert [p.name for p in tmp_path.iterdir()] == ["muster.log"]
    say(log, "x")
    rotate(rotation, NOW)
    assert [p.name for p in tmp_path.iterdir()] == [ASIDE]
    say(log, "next\n")
    assert path.read_text() == "next\n"
    assert (tmp_path / ASIDE).stat().st_size == 1 << 20


def test_one_that_cannot_be_removed_keeps_no_file_from_being_set_aside(tmp_path: Path) -> None:
    """As another user's in a sticky directory, or an immutable one: the log grew until the disk was full."""
    path, left = tmp_path / "muster.log", tmp_path / "muster-2026-01-01T00-00-00.000.log"
    older = tmp_path / "muster-2025-12-01T00-00-00.000.log"
    left.mkdir()
    older.touch()
    path.write_bytes(b"x" * (1 << 20))
    rotation = rotation_of([str(path)], '{"maxsize": 1, "maxage": 1}')
    with pytest.raises(OSError, match="2026-01-01"):
        rotate(rotation, NOW)
    assert {p.name for p in tmp_path.iterdir()} == {ASIDE, left.name}


def test_what_was_set_aside_is_compressed_and_bounded_by_number_and_age(tmp_path: Path) -> None:
    path = tmp_path / "muster.log"
    for hours in range(1, 6):
        stamp = (NOW - timedelta(hours=hours)).strftime("%Y-%m-%dT%H-%M-%S") + ".000"
        (tmp_path / f"muster-{stamp}.log").write_text(f"{hours}")
    (tmp_path / "muster-other.log").write_text("not ours")
    rotate(rotation_of([str(path)], '{"compress": true, "maxbackups": 3}'), NOW)
    kept = sorted(p.name for p in tmp_path.iterdir())
    assert len(kept) == 4
    assert kept[-1] == "muster-other.log"
    assert gzip.decompress((tmp_path / kept[-2]).read_bytes()) == b"1"
    rotate(rotation_of([str(path)], '{"maxage": 1}'), NOW + timedelta(hours=22, minutes=30))
    assert len(list(tmp_path.iterdir())) == 2, "only one is younger than a day"
    assert sum(1 for p in tmp_path.iterdir() if p.suffix == ".gz") == 1


def test_a_full_disk_keeps_no_file_from_being_set_aside_or_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "muster.log"
    path.write_bytes(bytes(1 << 20))
    for hour in (0, 1, 2):
        (tmp_path / f"muster-2026-01-02T0{hour}-00-00.000.log").write_text("old")
    Room(monkeypatch).free = 0
    with pytest.raises(OSError, match="No space"):
        rotate(rotation_of([str(path)], '{"compress": true, "maxbackups": 2, "maxsize": 1}'), NOW)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "muster-2026-01-02T01-00-00.000.log", "muster-2026-01-02T02-00-00.000.log", ASIDE]


def test_what_cannot_be_compressed_is_tried_seldom_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A try costs seconds of CPU time where files are large, and takes the room of others for a moment."""
    room = Room(monkeypatch)
    room.free = 1 << 20
    (tmp_path / ASIDE).write_bytes(bytes(2 << 20))
    rotator = Rotator(rotation_of([str(tmp_path / "muster.log")], '{"compress": true, "maxsize": 1}'))
    told, tries = [], []
    for second in range(7200):
        before = room.looks
        told.append(rotator.look(float(second)))
        if room.looks > before:
            tries.append(second)
    assert "No space left" in told[0]
    assert not any(told[1:])
    assert tries[:11] == [0, 1, 3, 7, 15, 31, 63, 127, 255, 511, 1023]
    assert {after - before for before, after in pairwise(tries[10:])} == {600}
    (tmp_path / "muster.log").write_bytes(bytes(1 << 20))
    assert rotator.look(7201.0) == ""
    assert not (tmp_path / "muster.log").exists(), "it is set aside meanwhile"
    room.free = 1 << 30
    assert not any(rotator.look(float(second)) for second in range(7202, 7810))
    assert [p.suffix for p in tmp_path.iterdir()] == [".gz", ".gz"]
    (tmp_path / ASIDE.replace("05", "06")).write_bytes(bytes(2 << 20))
    room.free = 0
    assert rotator.look(7811.0), "it is told again"


def test_compression_leaves_room_for_lines_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room(monkeypatch)
    room.free, room.spent = 40 << 20, 1 << 20  # with each look
    (tmp_path / ASIDE).write_bytes(bytes(32 << 20))
    rotation = rotation_of([str(tmp_path / "muster.log")], '{"compress": true}')
    with pytest.raises(OSError, match="No space left"):
        rotate(rotation, NOW)
    assert [p.name for p in tmp_path.iterdir()] == [ASIDE]
    assert 14 << 20 < room.free <= 16 << 20


def test_an_age_of_ages_is_no_bound(tmp_path: Path) -> None:
    (tmp_path / ASIDE).write_text("old")
    rotate(rotation_of([str(tmp_path / "muster.log")], '{"maxage": 10000000000}'), NOW + timedelta(days=1))
    assert (tmp_path / ASIDE).exists()


@pytest.mark.parametrize(
    ("outputs", "text", "words"),
    [
        (["stderr"], "{}", "requires a single file path"),
        (["a.log", "b.log"], "{}", "requires a single file path"),
        (["a.log"], "{", "improperly formatted log rotation config"),
        (["a.log"], "[]", "invalid log rotation config"),
        (["a.log"], '{"maxsize": "1"}', "maxsize is not of its kind"),
        (["a.log"], '{"maxsize": true}', "maxsize is not of its kind"),
        (["a.log"], '{"maxsize": -1}', "maxsize is not of its kind"),
        (["a.log"], '{"nosuch": 1}', "unknown setting nosuch"),
    ],
)
def test_what_cannot_be_is_refused_at_the_start(outputs: list[str], text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        rotation_of(outputs, text)


def test_lumberjacks_defaults(tmp_path: Path) -> None:
    rotation = rotation_of([str(tmp_path / "l")], '{"maxsize": 0}')
    assert (rotation.max_bytes, rotation.max_backups, rotation.max_age_days) == (100 << 20, 0, 0)
    assert not rotation.compress


def test_rotation_goes_on_once_there_are_threads_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended without a word: the log grew until the disk was full."""
    monkeypatch.setattr(rotation, "_LOOK_S", 0.001)
    looks, told, looked = list[float](), list[str](), asyncio.Event()

    async def to_thread(look: object, at: float) -> str:
        looks.append(at)
        if len(looks) <= 3:
            raise RuntimeError("can't start new thread")
        looked.set()
        return ""

    monkeypatch.setattr(rotation.asyncio, "to_thread", to_thread)

    async def work() -> int:
        await asyncio.wait_for(looked.wait(), 10)
        return 5

    settings = rotation_of([str(tmp_path / "muster.log")], "{}")
    assert asyncio.run(rotating(settings, told.append, work())) == 5
    assert told == ["can't start new thread"]

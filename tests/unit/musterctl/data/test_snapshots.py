"""``snapshot save``: what is no whole snapshot, and files that cannot be written."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from muster_client.admin import part
from muster_client.pb import rpc_pb2 as pb

from tests.unit.library.scripted import scripted
from tools.musterctl import cli

WHOLE = b"x" * 512 + b"y" * 32


def cut(request: pb.SnapshotRequest, context: grpc.ServicerContext) -> Iterator[pb.SnapshotResponse]:
    yield pb.SnapshotResponse(remaining_bytes=1_000, blob=b"x" * 512)


def whole(request: pb.SnapshotRequest, context: grpc.ServicerContext) -> Iterator[pb.SnapshotResponse]:
    yield pb.SnapshotResponse(remaining_bytes=0, blob=WHOLE)


def test_a_stream_that_ends_early_replaces_no_snapshot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "saved.db"
    with scripted({"Maintenance/Snapshot": whole}) as address:
        assert cli.run(["--endpoints", address, "snapshot", "save", str(saved)]) == 0
    with scripted({"Maintenance/Snapshot": cut}) as address:
        assert cli.run(["--endpoints", address, "snapshot", "save", str(saved)]) == 5
    assert capsys.readouterr().err == "Error: sha256 checksum not found [bytes: 512]\n"
    assert saved.read_bytes() == WHOLE
    assert list(tmp_path.iterdir()) == [saved]


@pytest.mark.parametrize(("name", "device", "said"), [
    ("folder", "", "could not rename {0}.part to {0} (rename {0}.part {0}: file exists)"),
    ("saved", "/dev/full", "write {0}.part: no space left on device"),
    ("none/saved", "", "could not open {0}.part (open {0}.part: no such file or directory)"),
    ("linked", "", "could not open {0}.part (open {0}.part: too many levels of symbolic links)"),
])  # fmt: skip
def test_what_cannot_be_written_is_told_in_etcdctls_words(
    name: str,
    device: str,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "linked.part").symlink_to(tmp_path / "elsewhere")
    if device:
        monkeypatch.setattr(part, "opened", lambda name: os.open(device, os.O_WRONLY))
    path = str(tmp_path / name)
    with scripted({"Maintenance/Snapshot": whole}) as address:
        assert cli.run(["--endpoints", address, "snapshot", "save", path]) == 5
    assert capsys.readouterr().err == f"Error: {said.format(path)}\n"


@pytest.mark.parametrize(("code", "ends"), [(0, 0), (errno.EINVAL, 0), (errno.EACCES, 0), (errno.EIO, 5)])
def test_the_name_of_a_snapshot_outlasts_a_power_cut_where_its_folder_can_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int, ends: int
) -> None:
    synced, sync = list[str](), os.fsync

    def note(fd: int) -> None:
        name = os.readlink(f"/proc/self/fd/{fd}")
        synced.append(name)
        if name == str(tmp_path) and code:
            raise OSError(code, os.strerror(code))
        sync(fd)

    monkeypatch.setattr(os, "fsync", note)
    saved = tmp_path / "saved.db"
    with scripted({"Maintenance/Snapshot": whole}) as address:
        assert cli.run(["--endpoints", address, "snapshot", "save", str(saved)]) == ends
    assert synced == [f"{saved}.part", str(tmp_path)]
    assert saved.read_bytes() == WHOLE
    told = f"Error: {saved} is saved, and a power cut may undo that: input/output error\n"
    assert capsys.readouterr().err == (told if ends else "")


@pytest.mark.parametrize("given", ["link/../saved.db", "saved.db"])
def test_a_snapshots_folder_is_synced_where_the_system_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """``..`` is that of a link's target. Where that was no folder, the command failed."""
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "aside").mkdir()
    (tmp_path / "aside" / "link").symlink_to(tmp_path / "disk" / "deep")
    monkeypatch.chdir(tmp_path / "aside")
    synced, sync = list[str](), os.fsync

    def note(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        sync(fd)

    monkeypatch.setattr(os, "fsync", note)
    with scripted({"Maintenance/Snapshot": whole}) as address:
        assert cli.run(["--endpoints", address, "snapshot", "save", given]) == 0
    assert synced[-1] == str(tmp_path / ("disk" if "link" in given else "aside"))


def test_a_file_that_is_left_over_is_made_anew(tmp_path: Path) -> None:
    """Its mode, or whoever had it open, let others read the hashes of passwords."""
    path, left = tmp_path / "saved.db", tmp_path / "saved.db.part"
    left.write_bytes(b"old")
    left.chmod(0o644)
    with left.open("rb") as reader, scripted({"Maintenance/Snapshot": whole}) as address:
        assert cli.run(["--endpoints", address, "snapshot", "save", str(path)]) == 0
        assert reader.read() == b"old"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes() == WHOLE


def test_a_file_that_another_save_writes_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was emptied, and the other save said later that it is saved."""
    path, taken = tmp_path / "saved.db", tmp_path / "saved.db.part"
    with taken.open("wb", buffering=0) as other, scripted({"Maintenance/Snapshot": whole}) as address:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write(b"a part")
        assert cli.run(["--endpoints", address, "snapshot", "save", str(path)]) == 5
    said = f"could not open {taken} (open {taken}: another save writes it)"
    assert capsys.readouterr().err == f"Error: {said}\n"
    assert taken.read_bytes() == b"a part"


def test_a_save_whose_part_is_another_s_now_leaves_it_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It gave the other's half file the good name, and said that it is saved."""
    path, part = tmp_path / "saved.db", tmp_path / "saved.db.part"

    def answers(request: pb.SnapshotRequest, context: grpc.ServicerContext) -> Iterator[pb.SnapshotResponse]:
        part.unlink()
        part.write_bytes(b"another's")
        yield from whole(request, context)

    with scripted({"Maintenance/Snapshot": answers}) as address:
        assert cli.run(["--endpoints", address, "snapshot", "save", str(path)]) == 5
    said = f"could not rename {part} to {path} (rename {part} {path}: it is another file now)"
    assert capsys.readouterr().err == f"Error: {said}\n"
    assert part.read_bytes() == b"another's"


def test_a_failed_login_has_etcdctls_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other commands end with 2, since etcdctl connects before them."""
    text = "etcdserver: authentication failed, invalid user ID or password"

    def refuse(request: pb.AuthenticateRequest, context: grpc.ServicerContext) -> pb.AuthenticateResponse:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)

    with scripted({"Auth/Authenticate": refuse}) as address:
        line = ["--endpoints", address, "--user", "u:wrong", "snapshot", "save", str(tmp_path / "saved.db")]
        assert cli.run(line) == 5
    assert capsys.readouterr().err == f"Error: {text}\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "./none", "none//x"])
@pytest.mark.parametrize(("command", "verb"), [("status", "stat"), ("restore", "open")])
def test_a_snapshot_that_is_not_there_is_named_as_it_was_given(
    command: str, verb: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Of an empty variable of a script, too: it is no word for the working directory."""
    monkeypatch.chdir(tmp_path)
    assert cli.run(["snapshot", command, name]) == 1
    assert capsys.readouterr().err == f"Error: {verb} {name}: no such file or directory\n"
    assert list(tmp_path.iterdir()) == []

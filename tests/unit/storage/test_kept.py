"""Files of what is kept of the order for a shard."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from cluster.order.log import Cut, encode_cut
from cluster.order.passing import KeptRecord, Passing, Piece
from node.storage import StorageCorruption, kept
from node.storage.errors import Scarce, SyncFailed
from node.storage.kept import KeptFiles, pieces_of

FOLD = b"\x01" * 8


def piece(shard: int, first: int, last: int) -> Piece:
    return Piece(shard, first, last, FOLD, (
        KeptRecord(first, last - 1, 3, 500, b"some items"), KeptRecord(last, last, 4, 20, b"")))


def test_what_was_written_is_there_at_the_next_start(tmp_path: Path) -> None:
    files = KeptFiles(tmp_path / "kept")
    assert files.found() == []
    written = [files.write(p) for p in (piece(1, 1, 9), piece(1, 10, 400), piece(2, 5, 7))]
    assert KeptFiles(tmp_path / "kept").found() == written
    assert files.read(written[1]) == piece(1, 10, 400)
    assert pieces_of(tmp_path / "kept")(1) == [piece(1, 1, 9), piece(1, 10, 400)]
    files.remove(written[:2])
    assert files.found() == written[2:]


def test_a_piece_takes_the_place_of_one_that_it_holds(tmp_path: Path) -> None:
    files = KeptFiles(tmp_path / "kept")
    first = files.write(piece(1, 1, 9))
    data = (tmp_path / "kept" / "1-0000000000000001-0000000000000009").read_bytes()
    longer = files.write(piece(1, 1, 20))
    files.remove([first])
    assert files.found() == [longer]
    # a crash before the shorter one was removed, and in the midst of another
    (tmp_path / "kept" / "1-0000000000000001-0000000000000009").write_bytes(data)
    (tmp_path / "kept" / "new").write_bytes(data[:20])
    assert KeptFiles(tmp_path / "kept").found() == [longer]
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_a_piece_knows_what_it_takes(tmp_path: Path) -> None:
    files, passing = KeptFiles(tmp_path / "kept"), Passing(1, 1, None)
    for index in range(1, 501):
        passing.take(index, 1, 100, encode_cut({2: Cut(index, 1, index)}))
    span = files.write(passing.finished())
    assert len(passing) == 500
    assert 0 < span.size - passing.size < 64
    longer = Passing(1, 501, None)
    longer.again(files.read(span))
    assert (longer.size, len(longer)) == (passing.size, 500)


class Directories:
    """Those that were synced, in turn."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.synced: list[str] = []
        self.failing = False
        patch.setattr(kept, "sync_directory", self)

    def __call__(self, path: Path) -> None:
        if self.failing:
            raise OSError(errno.EIO, "Input/output error")
        self.synced.append(path.name)


def test_a_file_whose_rename_may_not_be_durable_counts_once_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    KeptFiles(tmp_path / "kept").write(piece(1, 1, 9))
    directories = Directories(monkeypatch)
    files = KeptFiles(tmp_path / "kept")
    assert [span.last for span in files.found()] == [9]
    assert directories.synced == ["kept", tmp_path.name]
    files.write(piece(1, 10, 20))
    assert directories.synced == ["kept", tmp_path.name, "kept"]
    directories.failing = True
    with pytest.raises(SyncFailed):
        KeptFiles(tmp_path / "kept").found()


def test_a_file_whose_name_cannot_be_synced_goes_and_the_next_one_syncs_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directories, files = Directories(monkeypatch), KeptFiles(tmp_path / "kept")
    directories.failing = True
    with pytest.raises(OSError, match="Input/output"):
        files.write(piece(1, 1, 9))
    assert list((tmp_path / "kept").iterdir()) == []
    directories.failing = False
    files.write(piece(1, 1, 9))
    assert directories.synced == ["kept", tmp_path.name]


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:40] + b"X" + data[41:],
                                    lambda data: b""])
def test_a_damaged_file_is_told(tmp_path: Path, damage: object) -> None:
    files = KeptFiles(tmp_path / "kept")
    span = files.write(piece(1, 1, 9))
    (path,) = (tmp_path / "kept").iterdir()
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(StorageCorruption, match="kept of the order"):
        files.read(span)
    with pytest.raises(StorageCorruption, match="kept of the order"):
        KeptFiles(tmp_path / "kept").found()


def test_a_damaged_file_hides_no_other_shards(tmp_path: Path) -> None:
    KeptFiles(tmp_path / "kept").write(piece(1, 1, 9))
    (tmp_path / "kept" / "2-0000000000000001-0000000000000009").write_bytes(b"damaged")
    pieces = pieces_of(tmp_path / "kept")
    assert (pieces(1), pieces(3)) == ([piece(1, 1, 9)], [])
    with pytest.raises(StorageCorruption, match="kept of the order"):
        pieces(2)


@pytest.mark.parametrize(("code", "kind"), [
    (errno.EMFILE, Scarce), (errno.ENFILE, Scarce), (errno.EIO, StorageCorruption)])
def test_a_lack_of_files_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception]
) -> None:
    """The host of shard 0 stopped for good, as damaged."""
    files = KeptFiles(tmp_path / "kept")
    span = files.write(piece(1, 1, 9))

    def failing(path: Path) -> bytes:
        raise OSError(code, os.strerror(code), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", failing)
        with pytest.raises(kind, match=os.strerror(code)):
            files.read(span)
    assert files.read(span) == piece(1, 1, 9)

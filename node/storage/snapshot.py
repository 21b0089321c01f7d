"""State snapshots: a checkpoint of ``state`` as one stream of bytes, and its way back into a store.

Only ``state`` travels, never a log, a vote or a term (H8). The stream::

    magic(8) | length u32, crc u32 | header: JSON
    blocks:   length u32, crc u32 | data            each file in blocks of BLOCK_BYTES, in the header's order
    BLAKE2b-256 of all that stands before it | zeros up to a multiple of 512 bytes

``etcdctl snapshot save`` takes a file for whole only if its payload is a multiple of 512 bytes. Chunks may be
cut anywhere; the receiver checks every block as soon as it has it, and the whole at the end.

A killed process leaves its directories: ``remove_left`` of both classes removes them at the next start.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import re
import shutil
import time
import zlib
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from rocksdict import Checkpoint, Rdict

from node.storage import directory
from node.storage.errors import SnapshotRefused, StorageCorruption, is_damage, raise_read
from node.storage.keys import Position
from node.storage.options import UNCACHED, state_options
from node.storage.state.rows import open_to_read, position_of

if TYPE_CHECKING:
    from node.storage.state.store import StateStore

MAGIC = b"mstrsnp1"
BLOCK_BYTES = 64 << 10
_DIGEST_BYTES = 32
_ALIGNMENT = 512
_LOOK_BYTES = 1 << 20  # are written between two looks at the room on the disk
# of a file system that has none of that kind; drivers of SMB and of shared folders answer the last three
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES, errno.EROFS, errno.EPROTO}
_LEFT_OUT = re.compile(r"Table #\d+: ignoring (.*)")  # in RocksDB's LOG of a repair
DAMAGED = "it came with a damaged file"  # begins a refusal for which the sender checks its own tables
_serial = itertools.count(1)
_live: set[Path] = set()  # checkpoints of this process that are being sent


def _framed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + zlib.crc32(data).to_bytes(4, "little") + data


def _read_position(path: Path) -> Position:
    database = open_to_read(path, 1 << 20)
    try:
        return position_of(database, str(path))
    finally:
        database.close()


def check_tables(path: Path) -> None:
    """Raises StorageCorruption if a block of a table in this directory is damaged, OSError if it cannot tell.

    An iterator reads nothing below a range deletion. RocksDB's repair reads each table as a whole, and notes
    which it leaves out. It works on links: nothing here changes. It takes a second for each 1.5 GB or 14 M
    rows that the disk's cache has, without the interpreter's lock: for a helper thread. A file system that
    has no links at all gets the iterator.
    """
    aside = path / "check"
    aside.mkdir()
    try:
        if not _linked(path, aside):
            _walk(path)
            return
        try:
            Rdict.repair(str(aside), state_options(1 << 20, 1 << 20, create=False))
        except Exception as e:
            raise OSError(f"{path}: its tables cannot be checked: {e}") from e
        notes = [
            note
            for file in aside.glob("LOG*")
            for note in _LEFT_OUT.findall(file.read_text("utf-8", "replace"))
        ]
        if not notes and not any(aside.glob("lost/*")):
            return
        causes = [note.replace(f"{aside}/", f"{path}/") for note in notes]
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    damage = [cause for cause in causes if cause.startswith("Corruption") or os.strerror(errno.EIO) in cause]
    if causes and not damage:  # no file may be opened any more, for one
        raise OSError(f"{path}: its tables cannot be checked: {causes[0]}")
    raise StorageCorruption(f"{path}: {damage[0] if damage else 'a table cannot be read'}")


def _linked(path: Path, aside: Path) -> bool:
    """Link its tables into the directory aside; whether this file system has links. OSError."""
    for table in path.glob("*.sst"):
        link = aside / table.name
        try:
            try:
                link.symlink_to(Path("..", table.name))
            except OSError as e:
                if e.errno not in _NO_LINKS:
                    raise
                link.hardlink_to(table)
        except OSError as e:
            if e.errno not in _NO_LINKS:
                raise
            return False
    return True


def _walk(path: Path) -> None:
    """Reads all rows. StorageCorruption for what RocksDB calls so, OSError for any other error: it may be of
    the host, or of a server of files."""
    try:
        database = open_to_read(path, 1 << 20)
        try:
            rows = database.iter(UNCACHED)
            rows.seek_to_first()
            while rows.valid():
                rows.next()
            rows.status()
        finally:
            database.close()
    except Exception as e:
        cause = e.__cause__ or e  # RocksDB's own, if it was turned into ours
        if isinstance(cause, StorageCorruption) or is_damage(cause):
            raise StorageCorruption(f"{path}: {cause}") from e
        raise OSError(f"{path}: its tables cannot be checked: {cause}") from e


class SnapshotSource:
    """A snapshot being sent. ``position``: what it holds; ``size_bytes``: length of the whole stream."""

    def __init__(self, path: Path, position: Position) -> None:
        self.directory = path
        self.position = position
        self._files = sorted((f.name, f.stat().st_size) for f in path.iterdir())
        header = json.dumps(
            {"position": list(position), "files": self._files}, separators=(",", ":")).encode()
        self._header = MAGIC + _framed(header)
        self.size_bytes = len(self._header) + _DIGEST_BYTES
        for _, size in self._files:
            self.size_bytes += size + 8 * -(-size // BLOCK_BYTES)
        self.size_bytes += -self.size_bytes % _ALIGNMENT
        self._parts = self._stream()
        self._buffer = bytearray()

    @classmethod
    def create(cls, store: StateStore, path: str | Path) -> SnapshotSource:
        """Make a durable checkpoint in a new directory under ``path``, on the store's file system. May run in
        a helper thread."""
        parent = Path(path)
        parent.mkdir(parents=True, exist_ok=True)
        cls.remove_left(parent)
        target = parent / f"checkpoint-{next(_serial)}"
        _live.add(target)
        try:
            # A flush lets other threads run, a checkpoint does not: so it finds little left to flush.
            store.flush()
            with store.flushing:
                try:
                    Checkpoint(store.database).create_checkpoint(str(target))
                except Exception as e:
                    raise_read(e, store.path, "making a checkpoint")
            # read from the checkpoint itself: more may have been applied since the flush
            return cls(target, _read_position(target))
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            _live.discard(target)
            raise

    @staticmethod
    def remove_left(path: str | Path) -> None:
        """Remove the checkpoints under ``path`` that no source of this process uses."""
        with contextlib.suppress(FileNotFoundError):
            for child in Path(path).iterdir():
                if child not in _live:
                    shutil.rmtree(child, ignore_errors=True)

    def next_chunk(self, max_bytes: int) -> bytes:
        """The next bytes of the stream, empty at its end. Raises OSError if a file cannot be read,
        StorageCorruption if one is too short."""
        buffer = self._buffer
        while len(buffer) < max_bytes:
            part = next(self._parts, b"")
            if not part:
                break
            buffer += part
        chunk = bytes(buffer[:max_bytes])
        del buffer[:max_bytes]
        return chunk

    def check(self) -> None:
        """See :func:`check_tables`: its tables are the store's."""
        check_tables(self.directory)

    def close(self) -> None:
        """Remove the checkpoint, sent or not."""
        self._parts = iter(())
        shutil.rmtree(self.directory, ignore_errors=True)
        _live.discard(self.directory)

    def _stream(self) -> Iterator[bytes]:
        digest = blake2b(self._header, digest_size=_DIGEST_BYTES)
        sent = len(self._header)
        yield self._header
        for name, size in self._files:
            with open(self.directory / name, "rb") as file:
                left = size
                while left:
                    data = file.read(min(left, BLOCK_BYTES))
                    if not data:
                        raise StorageCorruption(f"{self.directory / name}: shorter than it was")
                    left -= len(data)
                    block = _framed(data)
                    digest.update(block)
                    sent += len(block)
                    yield block
        end = digest.digest()
        yield end + b"\0" * (-(sent + len(end)) % _ALIGNMENT)


class SnapshotSink:
    """A snapshot being received, built in a directory beside the store's database: :meth:`write`,
    :meth:`finish`, then ``StateStore.install``; or :meth:`abandon`. Raises SnapshotRefused at the first byte
    that does not fit."""

    def __init__(self, root: str | Path, spare_bytes: int = 0) -> None:
        """``spare_bytes`` of the disk, or half of what is free, are left to others."""
        self.directory = Path(root) / f"incoming-{os.getpid()}-{next(_serial)}"
        self.directory.mkdir(parents=True)
        self.position = Position(0, 0, 0, 0, 0)
        self._buffer = bytearray()
        self._digest = blake2b(digest_size=_DIGEST_BYTES)
        self._files: list[tuple[str, int]] | None = None
        self._left = 0  # bytes that the current file still lacks
        self._number = -1
        self._file_fd = -1
        self._received = 0
        self._spare_bytes = spare_bytes
        self._size = 0  # of all files
        self._unwritten = self._looked_at = 0  # bytes that they lack, and lacked at the last look at the disk
        self.synced_s = 0.0  # what making it durable took
        self._end: bytes | None = None  # the digest, once everything before it is there

    @staticmethod
    def remove_left(root: str | Path) -> None:
        """Remove what processes that ended were receiving: it may be what fills the disk.

        One may be just about to end, and install: by its rename, or this one, the directory is gone for the
        other.
        """
        for child in Path(root).glob("*incoming-*"):
            with contextlib.suppress(OSError):
                shutil.rmtree(child.rename(child.with_name(f"left-{child.name}")), ignore_errors=True)

    def write(self, data: bytes) -> None:
        self._buffer += data
        self._received += len(data)
        if self._files is None and not self._read_header():
            return
        while self._left:
            block = self._next_block()
            if block is None:
                return
            if len(block) > self._left:
                raise SnapshotRefused(f"a block reaches beyond the end of {self._name()}")
            self._write_block(block)
            if not self._left:
                self._next_file()
        if self._end is None and len(self._buffer) >= _DIGEST_BYTES:
            self._end = bytes(self._buffer[:_DIGEST_BYTES])
            del self._buffer[:_DIGEST_BYTES]
            if self._end != self._digest.digest():
                raise SnapshotRefused("the whole fails its checksum")

    def _write_block(self, block: bytes) -> None:
        if self._looked_at - self._unwritten >= _LOOK_BYTES:
            self._check_room()
        self._left -= len(block)
        self._unwritten -= len(block)
        while block:  # a disk that is nearly full takes a part
            block = block[os.write(self._file_fd, block) :]

    def _check_room(self) -> None:
        """All nodes of a host end where its disk is full."""
        self._looked_at = self._unwritten
        free = directory.free_bytes(self.directory)
        if free - self._unwritten < min(self._spare_bytes, free // 2):
            raise SnapshotRefused(f"the disk has too little room for its {self._size} bytes")

    def finish(self) -> Position:
        """Check that it is whole, with every block of its tables, make it durable, and return what it
        holds. The stream's checksums are of what the sender read: its tables may be damaged."""
        if self._end is None:
            raise SnapshotRefused(f"the snapshot ends after {self._received} bytes")
        if any(self._buffer) or self._received % _ALIGNMENT:
            raise SnapshotRefused("stray bytes behind the end")
        try:
            found = _read_position(self.directory)
            check_tables(self.directory)
        except StorageCorruption as e:
            cause = str(e).removeprefix(f"{self.directory}: ").replace(f"{self.directory}/", "")
            raise SnapshotRefused(f"{DAMAGED}: {cause}") from e
        if found != self.position:
            raise SnapshotRefused(f"holds {found}, announced {self.position}")
        began = time.perf_counter()
        directory.sync_tree(self.directory)
        self.synced_s = time.perf_counter() - began
        return self.position

    def abandon(self) -> None:
        if self._file_fd >= 0:
            os.close(self._file_fd)
            self._file_fd = -1
        shutil.rmtree(self.directory, ignore_errors=True)

    def _name(self) -> str:
        assert self._files is not None
        return self._files[self._number][0]

    def _read_header(self) -> bool:
        buffer = self._buffer
        if len(buffer) < len(MAGIC):
            return False
        if buffer[: len(MAGIC)] != MAGIC:
            raise SnapshotRefused("not a snapshot of this program")
        length = int.from_bytes(buffer[8:12], "little")
        if length > 1 << 24:
            raise SnapshotRefused("the header is damaged")
        if len(buffer) < 16 + length:
            return False
        header = bytes(buffer[16 : 16 + length])
        if zlib.crc32(header) != int.from_bytes(buffer[12:16], "little"):
            raise SnapshotRefused("the header fails its checksum")
        self._digest.update(buffer[: 16 + length])
        del buffer[: 16 + length]
        try:
            fields = json.loads(header)
            self.position = Position(*map(int, fields["position"]))
            self._files = [(str(name), int(size)) for name, size in fields["files"]]
        except (ValueError, TypeError, KeyError, OverflowError) as e:  # of another version
            raise SnapshotRefused(f"its header has another form: {e}") from e
        for name, _ in self._files:
            if "/" in name or name in ("", ".", ".."):
                raise SnapshotRefused(f"{name!r} is no name of a file")
        self._unwritten = self._size = sum(size for _, size in self._files)
        self._check_room()
        self._next_file()
        return True

    def _next_block(self) -> bytes | None:
        buffer = self._buffer
        if len(buffer) < 8:
            return None
        length = int.from_bytes(buffer[:4], "little")
        if not 0 < length <= BLOCK_BYTES:
            raise SnapshotRefused(f"a block of {self._name()} is damaged")
        if len(buffer) < 8 + length:
            return None
        data = bytes(buffer[8 : 8 + length])
        if zlib.crc32(data) != int.from_bytes(buffer[4:8], "little"):
            raise SnapshotRefused(f"a block of {self._name()} fails its checksum")
        self._digest.update(buffer[: 8 + length])
        del buffer[: 8 + length]
        return data

    def _next_file(self) -> None:
        """Close the complete file and open the next that is not empty."""
        assert self._files is not None
        if self._file_fd >= 0:
            os.close(self._file_fd)
            self._file_fd = -1
        while self._number + 1 < len(self._files):
            self._number += 1
            name, self._left = self._files[self._number]
            self._file_fd = os.open(
                self.directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            if self._left:
                return
            os.close(self._file_fd)
            self._file_fd = -1

"""The Raft log on disk: ``cluster.raft``'s LogStorage over a RocksDB whose every write is logged and synced.

Rows, and what is synced when: ``docs/design/storage.md``. :meth:`RaftLog.append` writes; :meth:`RaftLog.sync`
makes durable what was written before its call, in a helper thread, without the interpreter's lock. Nothing
that rests on a write may leave the replica before its sync (I2). A log that is shorter or older than its mark
(``mark``) is refused: this replica may have voted for or acknowledged what is gone (H10).

Cost: append of an entry of 300 B 6 us, sync 75-200 us of waiting.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rocksdict import Rdict, WriteBatch

from cluster.raft.types import Configuration, Entry, HardState, IntegrityError, SnapshotPosition
from node.storage.errors import StorageCorruption, StorageError, raise_read, raise_write
from node.storage.log.ahead import FilledAhead
from node.storage.log.mark import Mark, MarkFile
from node.storage.log.note import CommitNote
from node.storage.opening import open_database
from node.storage.options import bounded, check_log_opened, log_options

_ENTRY_ROW = struct.Struct(">cQ")
_ENTRIES_END = b"f"
_ALL_ENTRIES = bounded(_ENTRIES_END)
_HARD_STATE = struct.Struct("<QQQ")
_POSITION = struct.Struct("<QQ")
_HARD_STATE_ROW = b"h"
_POSITION_ROW = b"s"
_INSTALL_ROW = b"minstalling"
# of disk that an entry takes besides its data, about: header, key, and RocksDB's own
ROW_BYTES = 96
_ADVICE = (
    "This replica must not vote under its old identity: remove the member from the cluster and add it anew, "
    "with an empty data directory"
)


def _seal(data: bytes) -> bytes:
    return data + zlib.crc32(data).to_bytes(4, "little")


class RaftLog:
    """The log of one replica. Open one with :meth:`open`."""

    def __init__(self, root: Path, database: Rdict, mark: MarkFile, no_fsync: bool) -> None:
        self.path = str(root)
        self._database = database
        self._mark = mark
        self._no_fsync = no_fsync
        self._note = CommitNote(root / "committed")
        self._noted = self._note.read()
        self._where = root / "db"
        self._ahead = FilledAhead(self._where)
        # held while the mark changes: a sync that ends late must not raise it over a truncation
        self._marking = threading.Lock()
        self._truncations = 0
        # one value: the helper thread that syncs reads it while entries are appended
        self._written = Mark(0, 0, 0, 0)
        self._synced = self._written  # as much of it as is on the disk for certain
        self._syncs = self._last_sync = 0  # begun; the last of those that the mark knows
        self._hard_state = HardState(0, 0, 0)
        self._position = SnapshotPosition(0, 0, Configuration(frozenset()))
        self._terms = array("Q")  # of the entries behind the snapshot position
        self._ends = array("Q")  # bytes that were logged up to each of them, from some moment on
        self._dropped = 0  # the same, of the snapshot position
        self._last = 0
        self._longest = 0  # the last entry's index, whenever the log was about to get shorter
        self._closed = False
        self.written_bytes = 0

    @classmethod
    def open(cls, path: str | Path, *, initial: Configuration, no_fsync: bool = False,
             write_buffer_bytes: int = 48 << 20) -> RaftLog:
        """Open the log in directory ``path``, or create one whose group is ``initial``.

        ``write_buffer_bytes``: of entries in memory; what is logged between two truncations should fit twice.

        Reads and checks every entry. Raises StorageCorruption, which says what is damaged or missing and what
        to do; DirectoryLocked; LibraryRefused.
        """
        root = Path(path)
        root.mkdir(parents=True, exist_ok=True)
        where = root / "db"
        mark = MarkFile(root / "synced", no_fsync=no_fsync)
        fresh = not (where / "CURRENT").exists()
        if fresh and mark.exists():
            raise StorageCorruption(
                f"the log at {where} is gone, but {mark.path} says that there was one. {_ADVICE}"
            )
        database = open_database(where, log_options(write_buffer_bytes, create=fresh))
        log = cls(root, database, mark, no_fsync)
        try:
            check_log_opened(where)
            log._load(initial)
        except BaseException:
            mark.close()
            with suppress(Exception):  # RocksDB may have met the same damage: what is raised says it
                database.close()
            raise
        return log

    def close(self) -> None:
        """Sync and close; closing twice is harmless."""
        if self._closed:
            return
        self._closed = True
        self.sync()
        with self._marking:
            self._mark.write(self._written, force=True)
            self._mark.close()
        self._note.close()
        self._ahead.close()
        self._database.close()

    # LogStorage

    def hard_state(self) -> HardState:
        return self._hard_state

    def committed(self) -> tuple[int, int]:
        """Index and term of the last :meth:`note_committed` before this log was opened; zeros if there is
        none."""
        return self._noted

    def snapshot_position(self) -> SnapshotPosition:
        """The place just before the first kept entry."""
        return self._position

    def first_index(self) -> int:
        """Index of the first kept entry, or of the next one when there is none."""
        return self._position.index + 1

    def last_index(self) -> int:
        """Index of the last entry, or that of the snapshot position when there is none."""
        return self._last

    def highest_index(self) -> int:
        """The highest that :meth:`last_index` has been in this process."""
        return max(self._last, self._longest)

    def term(self, index: int) -> int:
        """Term of a kept entry, or of the snapshot position. IndexError outside of them."""
        offset = index - self._position.index - 1
        if offset >= 0:
            return self._terms[offset]
        if offset == -1:
            return self._position.term
        raise IndexError(f"entry {index} is no longer kept; the first is {self._position.index + 1}")

    def term_at(self, index: int) -> int | None:
        """As :meth:`term`; None outside of the kept entries and the snapshot position."""
        return self.term(index) if self._position.index <= index <= self._last else None

    def entries(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        """Entries ``[first, last]``, cut before ``max_bytes`` of data would be passed, at least one."""
        if not self._position.index < first <= last <= self._last:
            raise IndexError(
                f"entries [{first}, {last}] outside of [{self._position.index + 1}, {self._last}]"
            )
        out: list[Entry] = []
        size = 0
        try:
            options = bounded(_ENTRY_ROW.pack(b"e", last + 1))  # held: see there
            it = self._database.iter(options)
            it.seek(_ENTRY_ROW.pack(b"e", first))
            index = first
            while index <= last:
                if not it.valid():
                    it.status()
                    raise StorageCorruption(f"the log at {self.path} has no entry {index}")
                entry = Entry.decode(it.value())
                if entry.index != index or entry.term != self.term(index):
                    raise StorageCorruption(
                        f"the log at {self.path} has entry {entry.index} in the place of {index}"
                    )
                size += len(entry.data)
                if out and size > max_bytes:
                    break
                out.append(entry)
                index += 1
                it.next()
        except Exception as e:
            raise_read(e, self.path, f"reading log entries from {first}")
        return out

    def bytes_after(self, index: int) -> int:
        """Bytes of disk that the kept entries behind ``index`` take; but see :meth:`file_bytes`."""
        if not self._ends:
            return 0
        offset = index - self._position.index - 1
        return self._ends[-1] - (self._ends[offset] if offset >= 0 else self._dropped)

    def file_bytes(self) -> int:
        """Bytes of disk that the log's files take: what is kept, and ``LOG_BESIDE`` write buffers at most. 50
        us."""
        total = 0
        with suppress(FileNotFoundError), os.scandir(self._where) as files:
            for file in files:
                with suppress(FileNotFoundError):  # dropped meanwhile
                    total += file.stat().st_blocks * 512
        return total

    def index_before(self, size: int) -> int:
        """The last entry behind which at least ``size`` bytes are logged, or the snapshot position."""
        return self._position.index + (bisect_right(self._ends, self._ends[-1] - size) if self._ends else 0)

    # Writes

    def append(self, entries: Sequence[Entry], hard_state: HardState | None = None) -> None:
        """Write entries and hard state in one batch, unsynced. Replaces entries from ``entries[0].index`` on.
        Raises SyncFailed, StorageCorruption."""
        batch = WriteBatch(raw_mode=True)
        if entries:
            first = entries[0].index
            if not self._position.index < first <= self._last + 1:
                raise ValueError(
                    f"entry {first} does not follow {self._last} (kept from {self._position.index + 1})"
                )
            if first <= self._last:
                self._lower_mark(first - 1)
                batch.delete_range(_ENTRY_ROW.pack(b"e", first), _ENTRIES_END)
                del self._terms[first - self._position.index - 1 :]
                del self._ends[first - self._position.index - 1 :]
                self._last = first - 1
            last, terms, ends = self._last, self._terms, self._ends
            size = ends[-1] if ends else self._dropped
            term = self.term(last)
            pack = _ENTRY_ROW.pack
            for entry in entries:
                last += 1
                if entry.index != last or entry.term < term:
                    raise ValueError(
                        f"entry ({entry.index}, {entry.term}) cannot stand at {last} after term {term}"
                    )
                term = entry.term
                batch.put(pack(b"e", last), entry.encode())
                terms.append(term)
                size += len(entry.data) + ROW_BYTES
                ends.append(size)
            self._last = last
        if hard_state is not None:
            if hard_state.term < self._hard_state.term:
                raise ValueError(f"term goes back from {self._hard_state.term} to {hard_state.term}")
            batch.put(
                _HARD_STATE_ROW, _seal(_HARD_STATE.pack(hard_state.term, hard_state.vote, hard_state.commit)))
            self._hard_state = hard_state
        self._write(batch)
        self._note_written()  # not before: a sync in between would claim what it did not cover

    def note_committed(self, index: int) -> None:
        """The kept entry ``index`` is committed: call it before its apply (I25). Raises SyncFailed."""
        self._note.write(index, self.term(index))

    def sync(self) -> None:
        """Make durable what was written before this call. For a helper thread. Raises SyncFailed,
        StorageCorruption: end the process, for a second try would report nothing true."""
        with self._marking:
            self._syncs += 1
            sync, truncations, covered = self._syncs, self._truncations, self._written
        try:
            self._database.flush_wal(not self._no_fsync)
        except Exception as e:
            raise_write(e, self.path, "sync")
        with self._marking:
            # a sync that begins earlier and ends later than another one covers less
            if truncations == self._truncations and sync > self._last_sync:
                self._last_sync, self._synced = sync, covered
                self._mark.write(covered)

    def mark_is_behind(self) -> bool:
        """Whether :meth:`sync` is due for the mark's sake, though nothing was written since the last one."""
        return self._mark.is_behind()

    def truncate_prefix(self, position: SnapshotPosition) -> None:
        """Drop the entries up to ``position``. Only what a finished flush of the state covers (H9, I17)."""
        if position.index <= self._position.index:
            return
        if position.index > self._last or self.term(position.index) != position.term:
            raise ValueError(
                f"({position.index}, {position.term}) is not in the log; it ends at {self._last}"
            )
        batch = WriteBatch(raw_mode=True)
        batch.delete_range(_ENTRY_ROW.pack(b"e", 0), _ENTRY_ROW.pack(b"e", position.index + 1))
        batch.put(_POSITION_ROW, self._encode_position(position))
        kept_from = position.index - self._position.index
        self._dropped = self._ends[kept_from - 1]
        del self._terms[:kept_from], self._ends[:kept_from]
        self._position = position
        self._write(batch)

    def reclaim(self) -> None:
        """Give the space of truncated entries back to the file system. Long; for a helper thread."""
        try:
            self._database.flush(True)
            self._database.compact_range(None, None)
        except Exception as e:
            raise_write(e, self.path, "compacting")

    def begin_install(self, position: SnapshotPosition) -> None:
        """Remember, synced, that a snapshot at ``position`` is about to replace the state. Call it before the
        state is switched: after a crash in between :meth:`verify` finishes the install."""
        self._put(_INSTALL_ROW, self._encode_position(position))
        self.sync()

    def finish_install(self, position: SnapshotPosition) -> None:
        """After the state was replaced: keep the suffix that matches ``position``, else start again (H8)."""
        if position.index > self._position.index:
            if position.index <= self._last and self.term(position.index) == position.term:
                self.truncate_prefix(position)
            else:
                self.reset(position)
        self._drop_install()

    def reset(self, position: SnapshotPosition) -> None:
        """Drop all entries: the log now begins behind ``position``. Synced."""
        self._lower_mark(0)
        batch = WriteBatch(raw_mode=True)
        batch.delete_range(_ENTRY_ROW.pack(b"e", 0), _ENTRIES_END)
        batch.put(_POSITION_ROW, self._encode_position(position))
        del self._terms[:], self._ends[:]
        self._position = position
        self._last = position.index
        self._write(batch)
        self._note_written()
        self.sync()

    def verify(self, applied_index: int) -> None:
        """Check the log against the applied position of the state. Raises StorageCorruption."""
        pending = self.meta("installing")
        if pending is not None:
            position = self._decode_position(pending, "installing")
            if applied_index >= position.index:
                self.finish_install(position)
            else:
                self._drop_install()
        if self._last < applied_index:
            raise self._refused(f" ends at {self._last}, but {applied_index} had been applied")
        if applied_index < self._position.index:
            raise StorageCorruption(
                f"the state beside the log at {self.path} ends at {applied_index}, but the log begins behind "
                f"{self._position.index}. {_ADVICE}"
            )

    def meta(self, name: str) -> bytes | None:
        try:
            value: bytes | None = self._database.get(b"m" + name.encode())
        except Exception as e:
            raise_read(e, self.path, f"reading {name}")
        return value

    def set_meta(self, name: str, value: bytes) -> None:
        """Store a small row; durable after the next :meth:`sync`."""
        self._put(b"m" + name.encode(), value)

    # Inside

    def _note_written(self) -> None:
        self._written = Mark(self._last, self.term(self._last), self._hard_state.term, self._hard_state.vote)

    def _lower_mark(self, last_index: int) -> None:
        """Before the log gets shorter, durably: after a crash in between a legal log must not look robbed.
        Nor may the mark name what is written and not synced yet."""
        with self._marking:
            self._truncations += 1
            self._longest = self.highest_index()
            end = last_index, self.term(last_index) if last_index else 0
            self._written = self._written._replace(last_index=end[0], last_term=end[1])
            if last_index < self._synced.last_index:
                self._synced = self._synced._replace(last_index=end[0], last_term=end[1])
                self._mark.write(self._synced, force=True)

    def _put(self, row: bytes, value: bytes) -> None:
        batch = WriteBatch(raw_mode=True)
        batch.put(row, value)
        self._write(batch)

    def _write(self, batch: WriteBatch) -> None:
        size = batch.size_in_bytes()  # a written batch is gone
        self.written_bytes += size
        try:
            self._database.write(batch)
        except Exception as e:
            raise_write(e, self.path, "write")
        if not self._no_fsync:
            self._ahead.wrote(size)

    def _drop_install(self) -> None:
        batch = WriteBatch(raw_mode=True)
        batch.delete(_INSTALL_ROW)
        self._write(batch)
        self.sync()

    @staticmethod
    def _encode_position(position: SnapshotPosition) -> bytes:
        return _seal(_POSITION.pack(position.index, position.term) + position.configuration.encode())

    def _decode_position(self, row: bytes, name: str) -> SnapshotPosition:
        data = self._unseal(row, name)
        index, term = _POSITION.unpack_from(data)
        return SnapshotPosition(index, term, Configuration.decode(data[_POSITION.size :]))

    def _unseal(self, row: bytes, name: str) -> bytes:
        if int.from_bytes(row[-4:], "little") != zlib.crc32(row[:-4]):
            raise StorageCorruption(f"{self.path}: the row '{name}' fails its checksum")
        return row[:-4]

    def _load(self, initial: Configuration) -> None:
        try:
            self._read_rows(initial)
        except (StorageError, IndexError):  # as they are: a frame that holds one would keep the iterator open
            raise
        except Exception as e:  # RocksDB's, or IntegrityError of an entry
            raise_read(e, self.path, "reading the log")

    def _read_rows(self, initial: Configuration) -> None:
        database = self._database
        row = database.get(_POSITION_ROW)
        hard_state = database.get(_HARD_STATE_ROW)
        if hard_state is not None:
            self._hard_state = HardState(*_HARD_STATE.unpack(self._unseal(hard_state, "hard state")))
        if row is not None:
            self._position = self._decode_position(row, "snapshot position")
        elif hard_state is None and not self._mark.exists():
            self._position = SnapshotPosition(0, 0, initial)
            self._put(_POSITION_ROW, self._encode_position(self._position))
            database.flush_wal(not self._no_fsync)
        else:
            raise self._refused(" has no snapshot position")
        self._last = self._position.index
        it = database.iter(_ALL_ENTRIES)
        it.seek(_ENTRY_ROW.pack(b"e", self._last + 1))
        term, size = self._position.term, 0
        while it.valid():
            try:
                entry = Entry.decode(it.value())
            except IntegrityError as e:
                raise self._refused(f", entry {self._last + 1}: {e}") from e
            due = self._last + 1
            if it.key() != _ENTRY_ROW.pack(b"e", due) or entry.index != due or entry.term < term:
                raise self._refused(
                    f" has entry ({entry.index}, term {entry.term}) after ({self._last}, term {term})")
            self._last, term = entry.index, entry.term
            self._terms.append(term)
            size += len(entry.data) + ROW_BYTES
            self._ends.append(size)
            it.next()
        it.status()
        self._note_written()
        self._check_mark()

    def _check_mark(self) -> None:
        if not self._mark.exists():
            if self._last or self._hard_state != HardState(0, 0, 0):
                raise StorageCorruption(
                    f"{self._mark.path} is missing, so it is unknown how far the log at {self.path} "
                    f"had been synced. {_ADVICE}"
                )
            self._mark.create()
            return
        mark = self._synced = self._mark.open()
        if self._last < mark.last_index:
            raise self._refused(f" ends at {self._last}, but {mark.last_index} had been synced")
        if mark.last_index > self._position.index and self.term(mark.last_index) != mark.last_term:
            raise self._refused(
                f" has an entry of term {self.term(mark.last_index)} at {mark.last_index}, but one of term "
                f"{mark.last_term} had been synced there")
        now = self._hard_state
        if now.term < mark.term or (now.term == mark.term and mark.vote and now.vote != mark.vote):
            raise self._refused(
                f" has term {now.term} and vote {now.vote:x}, but term {mark.term} and vote {mark.vote:x} "
                "had been synced")

    def _refused(self, why: str) -> StorageCorruption:
        return StorageCorruption(f"the log at {self.path}{why}. {_ADVICE}")

"""How the two RocksDB databases are opened, and why each option is as it is."""

from __future__ import annotations

import os
from pathlib import Path

from rocksdict import (
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    DBRecoveryMode,
    Env,
    Options,
    ReadOptions,
    WriteOptions,
)

from node.durable import SCARCE
from node.storage.errors import LibraryRefused
from node.storage.keys import KEYS_END, RUNS_END

LOG_CACHE_BYTES = 4 << 20
BLOCK_BYTES = 8 << 10


# RocksDB passes over each removed row, all within one call. So a table of the state is merged at once where
# it has so many of them, nearly in a row. A queue's store is merged three times as often for that, and its
# compactions take a third less. Keys that change once between two compactions stay below: a new row lies
# beside each removal
REMOVALS, _AMONG = 12_288, 16_384
_SKIPPED = 64  # deleted rows that a brief seek runs over
_WRITE_BUFFERS = 4  # of the state: see state_options
_UNFLUSHED = 3  # write buffers at most, of which each has a write-ahead file
_RECYCLED = 2  # such files that wait to be used again
_TABLES = 8  # level-0 tables of the log, at which writes wait for a compaction
# hard state and incarnations, of 28 and 8 bytes, lie with the keys: a row that stays keeps a whole file
_LEAST_BLOB_BYTES = 32
# The log's files take so many write buffers at most beside what is kept: the write-ahead files, entries in
# level-0 tables and in two flushes that were under way when these were full, and a file of which a part is
# kept
LOG_BESIDE = _UNFLUSHED + _RECYCLED + _TABLES + 2 + 1


def _common(cache_bytes: int, write_buffer_bytes: int, create: bool) -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(create)
    options.set_paranoid_checks(True)
    options.set_write_buffer_size(write_buffer_bytes)
    options.set_max_write_buffer_number(_UNFLUSHED)
    # Each process has one CPU: one flush and one compaction at a time
    options.set_max_background_jobs(2)
    # bounds the memory that table readers take; their index blocks are in the cache
    options.set_max_open_files(256)
    options.set_max_file_opening_threads(1)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(1 << 20)
    options.set_max_manifest_file_size(1 << 20)  # 300 bytes for each flush; it grows to a gigabyte otherwise
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    options.set_compression_type(DBCompressionType.none())
    table = BlockBasedOptions()
    table.set_block_cache(Cache(cache_bytes))
    # in the cache, so that one figure bounds them together with the data
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    table.set_block_size(BLOCK_BYTES)
    # 6: footer, index and meta blocks carry checksums that tell a block of another file or offset
    table.set_format_version(6)
    options.set_block_based_table_factory(table)
    return options


def log_options(write_buffer_bytes: int, *, create: bool) -> Options:
    """The Raft log: write-ahead files are recycled so that a sync changes no file size. That allows only
    point-in-time recovery, which drops a damaged tail silently: the mark beside the database tells (H10).
    Entries lie in blob files beside tables of their keys; a file goes with its last kept entry, which bounds
    the disk (``LOG_BESIDE``)."""
    options = _common(LOG_CACHE_BYTES, write_buffer_bytes, create)
    options.set_wal_recovery_mode(DBRecoveryMode.point_in_time())
    options.set_recycle_log_file_num(_RECYCLED)
    options.set_allow_mmap_writes(False)
    options.set_wal_bytes_per_sync(0)
    options.set_target_file_size_base(write_buffer_bytes)
    options.set_enable_blob_files(True)
    options.set_min_blob_size(_LEAST_BLOB_BYTES)
    options.set_blob_file_size(1 << 30)  # one for each flush: it is never divided
    options.set_level_zero_file_num_compaction_trigger(2)
    options.set_level_zero_slowdown_writes_trigger(_TABLES)
    options.set_level_zero_stop_writes_trigger(_TABLES)
    # One more of each than for one database: neither waits behind a long flush or compaction of the state
    env = Env()
    env.set_high_priority_background_threads(2)
    env.set_low_priority_background_threads(2)
    options.set_env(env)
    return options


# What the log's recovery needs. rocksdict cannot set all of it, and RocksDB changes at open what it finds
# inconsistent (other recovery modes end the recycling): so what it opened with is read back
LOG_NEEDS = {
    "wal_recovery_mode": "kPointInTimeRecovery",  # the mark and the checksums stand beside this one only
    "recycle_log_file_num": "2",
    # a log that was read back is never written to again, filling and all
    "avoid_flush_during_recovery": "false",
    "best_efforts_recovery": "false",
    # a write is in the file when it returns, so that a killed process loses none
    "manual_wal_flush": "false",
    "wal_compression": "kNoCompression",
    "allow_mmap_writes": "false",  # a mapped file is cut to its length, and would be filled in between
    "wal_bytes_per_sync": "0",
}


def check_log_opened(directory: Path) -> None:
    """Raises LibraryRefused unless RocksDB keeps the log in this directory, just opened, as recovery and
    ``ahead`` need it, and writes at an offset of its own: else what it writes would come behind the
    filling."""
    newest = max(directory.glob("OPTIONS-*[0-9]"), key=lambda file: int(file.name[8:]), default=None)
    if newest is None:
        raise LibraryRefused(f"{directory}: RocksDB has not written down its options")
    lines = (line.strip().partition("=") for line in newest.read_text(encoding="utf-8").splitlines())
    opened = {name.strip(): value.strip() for name, is_pair, value in lines if is_pair}
    wrong = [
        f"{name}={opened.get(name)} where {value} is needed"
        for name, value in LOG_NEEDS.items()
        if opened.get(name) != value
    ]
    if wrong:
        raise LibraryRefused(
            f"{directory}: RocksDB {opened.get('rocksdb_version')} opened the log with {', '.join(wrong)}"
        )
    files = _flags_of_files(directory)
    if not files or any(flags & os.O_APPEND for flags in files):
        raise LibraryRefused(
            f"{directory}: RocksDB {opened.get('rocksdb_version')} does not write its log at an "
            f"offset of its own ({files})"
        )


def _flags_of_files(directory: Path) -> list[int]:
    """The flags with which this process opened the write-ahead files in a directory."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            path = Path(os.readlink(f"/proc/self/fd/{fd}"))
            if path.suffix == ".log" and path.parent.samefile(directory):
                found += [
                    int(line.split()[1], 8)
                    for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
                    if line.startswith("flags:")
                ]
        except OSError as e:  # closed meanwhile by another thread, or this user may not look there
            if e.errno in SCARCE:  # another start may find some
                raise
    return [flags for flags in found if flags & os.O_ACCMODE != os.O_RDONLY]


def state_options(block_cache_bytes: int, write_buffer_bytes: int, *, create: bool) -> Options:
    """The applied state: no write-ahead log; only flushes make it durable. Four small write buffers, flushed
    together as one table, keep their lists in the CPU's caches: a row in batches of 250 takes 1.0 us instead
    of 2.0."""
    options = _common(block_cache_bytes, write_buffer_bytes // _WRITE_BUFFERS, create)
    # a table is written to the disk as it grows: the log's syncs do not wait for all of it
    options.set_bytes_per_sync(1 << 20)
    options.set_min_write_buffer_number_to_merge(_WRITE_BUFFERS)
    options.set_max_write_buffer_number(_WRITE_BUFFERS + 2)  # one is written to while four are flushed
    options.set_target_file_size_base(max(8 << 20, write_buffer_bytes))
    options.set_max_bytes_for_level_base(4 * max(8 << 20, write_buffer_bytes))
    options.set_level_compaction_dynamic_level_bytes(True)
    options.add_compact_on_deletion_collector_factory(_AMONG, REMOVALS, 0.0)
    return options


def bounded(upper: bytes) -> ReadOptions:
    """Read options that end at ``upper``: an iterator then never runs over deleted rows behind its range.

    Keep the result in a variable while the iterator is used: RocksDB points into it, and rocksdict does not
    hold it. A freed bound ends the iteration anywhere.
    """
    options = ReadOptions()
    options.set_iterate_upper_bound(upper)
    return options


def brief(upper: bytes) -> ReadOptions:
    """:func:`bounded`, for a single seek: it gives up ("Incomplete") instead of running over many deleted
    rows."""
    options = bounded(upper)
    options.set_max_skippable_internal_keys(_SKIPPED)
    return options


ALL_KEYS = bounded(KEYS_END)
ALL_RUNS = bounded(RUNS_END)
UNCACHED = ReadOptions()  # for walks over everything, which would push out what requests read
UNCACHED.fill_cache(False)  # type: ignore[call-arg]  # the hints lack the argument
UNLOGGED = WriteOptions()
UNLOGGED.disable_wal = True  # type: ignore[method-assign,assignment]  # a property, whatever the hints say
BRIEF = ReadOptions()  # the same without a bound
BRIEF.set_max_skippable_internal_keys(_SKIPPED)

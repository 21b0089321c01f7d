"""How the two RocksDB databases are opened, and why each option is as it is."""

from __future__ import annotations

from rocksdict import (
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    ReadOptions,
    WriteOptions,
)

from node.storage.keys import KEYS_END, RUNS_END

LOG_CACHE_BYTES = 4 << 20
BLOCK_BYTES = 8 << 10


_WRITE_BUFFERS = 4  # of the state: see state_options


def _common(cache_bytes: int, write_buffer_bytes: int, create: bool) -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(create)
    options.set_paranoid_checks(True)
    options.set_write_buffer_size(write_buffer_bytes)
    options.set_max_write_buffer_number(3)
    # Each process has one CPU: one flush and one compaction at a time
    options.set_max_background_jobs(2)
    # bounds the memory that table readers take; their index blocks are in the cache
    options.set_max_open_files(256)
    options.set_max_file_opening_threads(1)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(1 << 20)
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
    """The Raft log: every write in the write-ahead log, whose files are recycled so that a sync changes no
    file size. Recycling allows only point-in-time recovery, which drops a damaged tail silently: the mark
    beside the database tells (H10)."""
    options = _common(LOG_CACHE_BYTES, write_buffer_bytes, create)
    options.set_wal_recovery_mode(DBRecoveryMode.point_in_time())
    options.set_recycle_log_file_num(2)
    options.set_target_file_size_base(write_buffer_bytes)
    return options


def state_options(block_cache_bytes: int, write_buffer_bytes: int, *, create: bool) -> Options:
    """The applied state: no write is in a write-ahead log, flushes are the only thing that makes it durable.

    Most of what a row costs is finding its place in the write buffer, a list of which every step misses the CPU's caches. So
    the buffer is four small ones, of which one is written to, and which are flushed together as one table: a row in batches
    of 250 takes 1.0 us instead of 2.0. A seek among unflushed rows takes 7 us instead of 5 at worst, when all are filled; what is
    read often is not sought (``VersionCache``, ``blocks``).
    """
    options = _common(block_cache_bytes, write_buffer_bytes // _WRITE_BUFFERS, create)
    options.set_min_write_buffer_number_to_merge(_WRITE_BUFFERS)
    options.set_max_write_buffer_number(_WRITE_BUFFERS + 2)  # one is written to while four are flushed
    options.set_target_file_size_base(max(8 << 20, write_buffer_bytes))
    options.set_max_bytes_for_level_base(4 * max(8 << 20, write_buffer_bytes))
    options.set_level_compaction_dynamic_level_bytes(True)
    return options


def bounded(upper: bytes) -> ReadOptions:
    """Read options that end at ``upper``: an iterator then never runs over deleted rows behind its range.

    Keep the result in a variable for as long as the iterator is used: RocksDB points into it, and rocksdict
    does not hold it. A bound that was freed ends the iteration anywhere.
    """
    options = ReadOptions()
    options.set_iterate_upper_bound(upper)
    return options


ALL_KEYS = bounded(KEYS_END)
ALL_RUNS = bounded(RUNS_END)
UNCACHED = ReadOptions()  # for walks over everything, which would push out what requests read
UNCACHED.fill_cache(False)  # type: ignore[call-arg]  # the hints lack the argument
UNLOGGED = WriteOptions()
UNLOGGED.disable_wal = True  # type: ignore[method-assign,assignment]  # a property, whatever the hints say
# For single seeks without a bound: gives up ("Incomplete") instead of running over many deleted rows
BRIEF = ReadOptions()
BRIEF.set_max_skippable_internal_keys(64)

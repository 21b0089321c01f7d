"""The MVCC state of a shard in RocksDB.

Read in this order: ``store`` (its face), ``apply`` with ``puts`` and ``deletes`` (order records into rows), ``reads`` with
``blocks`` and ``counts``, ``history``, ``compaction`` with ``stale_rows``, ``hashing``, ``lease_check``.
"""

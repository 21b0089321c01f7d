"""The MVCC state of a shard in RocksDB.

Read in this order: ``rows``, ``reads``, ``versions`` (the keys, with ``version_cache``, ``counts`` and
``lease_lists``), ``changes`` (order records into rows), ``blocks`` and ``reader`` (reads in slices),
``history``, ``slices`` (long work over all of it), ``store`` (the whole) with ``made``.
"""

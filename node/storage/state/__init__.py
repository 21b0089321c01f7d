"""The MVCC state of a shard in RocksDB.

Read in this order: ``store`` (its face), ``changes`` (order records into rows), ``reads`` with ``blocks`` and
``counts``, ``history``, ``slices`` (long work over all of it); ``version_cache`` and ``made`` serve
``store``.
"""

"""Long work over a shard's whole state, done in slices.

``compaction`` with ``stale_rows``, ``hashing``, ``lease_check``.
"""

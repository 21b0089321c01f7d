"""Long work over a shard's whole state, done in slices.

``compaction`` with ``stale_rows``; ``walk``, and what goes on as one: ``hashing``, ``lease_check``.
"""

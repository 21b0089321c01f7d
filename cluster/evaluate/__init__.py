"""What a request does, against a view of its shard's state: pure functions, the same on every replica.

Read ``view`` (what evaluation reads and gives), ``validate``, ``requests`` (each kind of request),
``plain_put`` (a fast path), ``txns``, ``reading`` (ranges), ``footprint`` and ``spans`` (what a request
touches), ``replica`` (a shard's leader), ``feature_table``.
"""

"""Requests over several shards, as one front puts them together.

Read ``gather`` first, then ``merged_ranges`` with ``row_merge``, ``sorted_ranges``, ``lease_keys``,
``read_txns`` and ``range_txns``.
"""

"""The sequencer, leader of shard 0: what it admits, prepares, evaluates and appends for several shards.

Read ``coordinator`` first, then ``granted`` (the store as shards grant it) and ``expiries`` (leases over all shards).
"""

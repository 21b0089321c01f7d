"""The sequencer, leader of shard 0: what it admits, prepares, evaluates and appends for several shards.

Read ``sequencer`` first (one run puts what is due into the log), then ``coordinator``, ``granted`` (the
store as shards grant it) and ``expiries`` (leases over all shards).
"""

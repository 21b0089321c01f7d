"""The sequencer, leader of shard 0. Read ``sequencer`` (one run puts what is due into the log),
``coordinator``, ``granted`` (the store as shards grant it), ``expiries`` (leases over all shards)."""

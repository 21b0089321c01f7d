"""A leader's writes under way, for shard 0 and the others. Read ``intake``, ``aside``, ``under_way``."""

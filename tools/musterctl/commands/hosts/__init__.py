"""``endpoint``, ``member``, ``leading``, ``shard``, ``maintenance`` (alarms and others)."""

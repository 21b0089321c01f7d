"""Hosts and their cluster: ``endpoint``, ``member``, ``leading``, ``shard``, ``maintenance`` (alarms and
the rest)."""

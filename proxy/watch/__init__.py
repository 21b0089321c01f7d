"""Watches: one upstream subscription per distinct range, any number of client watches on it. Read ``encode``
(wire form), ``parts`` (one shard's events), ``subscription`` (several shards merged), ``ring`` (kept for
laggards), ``cohort`` (watches served as one), ``history`` and ``gathered`` (catching up), ``stream`` (one
client's), ``progress``, ``hub`` (all of it)."""

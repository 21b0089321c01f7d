"""Watches: one upstream subscription per distinct range, any number of client watches on it. Read ``encode``
(wire form), ``parts`` (one shard's events), ``subscription`` (several shards merged), ``cohort`` (watches
served as one), ``lagging`` (catching up), ``stream`` (one client's), ``progress``, ``hub`` (all of it)."""

"""Whom a node talks to: its peers of the same shard, the nodes of other shards on its host, and fronts.

Read in this order: ``peers`` with ``mail`` (Raft), ``fronts``, ``siblings`` and ``linked`` (other shards),
``sockets``, ``incarnations`` (which data directory stands behind a member), ``contacts``, ``round_trips`` and
``standing`` (what is told of all this).
"""

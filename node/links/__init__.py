"""The links of a node: to its peers of the same shard, to the nodes of other shards, and to fronts.

Read in this order: ``peers`` with ``mail`` (Raft), ``fronts``, ``siblings`` (other shards), ``listeners``,
``incarnations`` and ``promises`` (which data directory a member has), ``contacts``, ``round_trips`` and
``standing`` (what a node reports about all this).
"""

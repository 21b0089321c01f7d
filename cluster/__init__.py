"""The protocols: pure state machines that take events and return actions.

Nothing here touches a socket, a disk, a clock, a thread or randomness: those enter through
narrow interfaces passed in, so that a whole cluster runs in one process from one seed.

Read in this order: ``records`` (what a log entry says), ``raft`` (consensus of one group), ``evaluate`` (what
a request does), ``replica`` (the leader of a store of one shard, or of shard 0), ``placement``, ``order``
(cuts and multis: how many logs become one order), ``shard`` (the leader of any other shard), ``prepare``,
``locks`` and ``coordinator`` (transactions over several shards), ``lease``, ``pace`` (when entries leave),
``messages`` (between fronts and nodes).
"""

"""The protocols: pure state machines that take events and return actions.

Nothing here touches a socket, a disk, a clock, a thread or randomness: those enter through
narrow interfaces passed in, so that a whole cluster runs in one process from one seed.

Read in this order: ``raft`` (consensus of one group), ``records`` (what a log entry says),
``evaluate`` (what a request does), ``replica`` (one shard's leader and followers),
``lease``, ``placement``, ``messages`` (between fronts and nodes).
"""

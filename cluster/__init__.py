"""The protocols: pure state machines that take events and return actions.

Nothing here touches a socket, a disk, a clock, a thread or randomness: those are passed in, so that a whole
cluster runs in one process from one seed.

Read in this order: ``effects`` (what a log entry says), ``raft`` (consensus of one group), ``evaluate`` (what
a request does), ``placement``, ``order`` (how many logs become one order), ``pacing`` (when entries
leave), ``wire`` (between fronts and nodes).
"""

"""A leader's writes on their way, the same for shard 0 and for the others.

Read ``intake`` (requests until they are evaluated, and when the next entry leaves), ``aside`` (those that
something is looked at for ahead), then ``under_way`` (logged entries until their fate is known). Each leader
has its own of the rest: who assigns revisions, what an entry holds, what a request may wait for. See
``node.replica.writes`` and ``cluster.order.leading``.
"""

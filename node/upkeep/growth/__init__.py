"""What the policy of growth (``cluster.growth``) has of this machine: its facts, its clock and its actions.

Read ``sampling`` (each node's keys), ``host`` (CPUs and disk), ``gathering`` (what all of them tell the
leader of shard 0), ``advising`` (the driver).
"""

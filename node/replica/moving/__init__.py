"""Keys that move between shards, at one node (``cluster.order.moving`` has the machines).

Read ``moved`` (what the store does for it), ``sources`` (what a source answers), ``copying`` (a target's
copy, and the wait for it), ``leaving`` (when a source drops what has left), ``disks`` (how far others' are),
``sequencing`` (shard 0's part); ``of_order`` and ``of_shard`` hold these together for the two roles.
"""

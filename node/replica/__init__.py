"""The replica's loop: Raft, the disk, the store, and everybody who talks to it.

Read in this order: ``server`` (the loop), ``writes``, ``applying``, then with several shards ``order_node`` (node 0), ``feed``,
``shard_node`` (any other), ``fates``, ``handover``; ``leaving`` is its end.
"""

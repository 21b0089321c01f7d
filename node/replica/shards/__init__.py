"""What replicas have besides where a store has several shards.

Read in this order: ``linked`` (links to the nodes of other shards), ``order_node`` (node 0: the order log
and its sequencer), ``feed`` (from there to the others), ``shard_node`` (any other shard), ``fates``,
``handover``.
"""

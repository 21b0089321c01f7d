"""The roles of replicas where a store has several shards.

Read in this order: ``linked`` (what both have: links to the nodes of other shards), ``order_role`` (the
role of node 0: the order log and its sequencer), ``to_leaders`` (what it asks the other shards' leaders),
``controls``, ``retention``, ``feed`` (from there to the others), ``shard_role`` (the role of any other
shard), ``feed_end`` (where it takes its feed from), ``fates``, ``handover``.
"""

"""One replica of one shard: a process of its own, pinned to a CPU.

Read in this order: ``server`` (the event loop that drives everything below), ``peers`` and ``fronts`` (who
talks to this node), ``storage`` (Raft log and MVCC state in RocksDB), ``disk`` (when what is synced),
``reads``, ``watches``, ``snapshots``, ``upkeep`` (log truncation, compaction, publication), ``leaving`` (its end). With several
shards: ``order_node`` (the order log and its sequencer), ``feed``, ``shard_node`` (any other shard), ``links``, ``handover``.

It gets its machine passed in (``node.machine``). ``kinds`` names who takes which request. ``python -m node``
(see ``cluster.settings``) runs one; ``muster`` starts them.
"""

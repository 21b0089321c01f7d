"""One replica of one shard: a process of its own, pinned to a CPU.

Read in this order: ``replica`` (the event loop that drives everything below; ``replica.shards`` with
several shards), ``links`` (who talks to this node), ``storage`` (Raft log and MVCC state in RocksDB),
``serving`` (reads, watches, long answers), ``upkeep`` (log truncation, compaction, snapshots), ``slicing``
(long work beside requests), ``members``, ``backup``.

It gets its machine passed in (``node.machine``). ``kinds`` names who takes which request. What runs
one, as ``cluster.settings`` say, is ``tools.muster.processes.node``.
"""

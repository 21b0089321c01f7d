"""One replica of one shard: a process of its own, pinned to a CPU.

Read in this order: ``replica`` (the event loop that drives everything below; ``replica.shards`` with several
shards), ``links`` (peers, fronts, other shards' nodes), ``storage`` (Raft log and MVCC state in RocksDB),
``serving`` (reads, watches, long answers), ``upkeep`` (log truncation, compaction, snapshots), ``slicing``
(long work beside requests), ``members``, ``backup``.

A part's ``...Node`` protocol lists what it needs of its node; ``any_node`` has what most parts need.
``machine`` is passed in; ``control_groups`` says what a container may use. ``kinds`` says which part takes
which request. ``tools.muster.processes.node`` runs a node by ``cluster.settings``.
"""

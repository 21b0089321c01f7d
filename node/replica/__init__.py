"""The replica's loop: Raft, the disk, the store, and everybody who talks to it.

Read in this order: ``server`` (the loop), ``writes``, ``applying``; ``shards`` is what several shards add;
``leaving`` is its end. ``made`` chooses the kind of node.
"""

"""The replica's loop: Raft, the disk, the store, and everybody who talks to it.

Read in this order: ``server`` (the loop), ``role`` (in what nodes differ), ``lone``, ``writes``,
``applying``; ``shards`` has the roles of several shards; ``leaving`` is its end. ``made`` chooses the role.
"""

"""The replica's loop: Raft, the disk, the store and all links.

Read in this order: ``server`` (the loop), ``role`` (how nodes differ), ``lone``, ``writes``,
``applying``; ``shards`` has the roles of several shards; ``leaving`` is its end. ``made`` chooses the
role.
"""

"""The replica's loop: Raft, the disk, the store and all links.

Read in this order: ``server`` (the loop) with ``opening``, ``clock`` and ``requests``, ``roles`` (how nodes
differ), ``writes``, ``applying`` and ``consequences``, ``pacing`` (what waits); ``shards`` has the roles of
several shards, ``moving`` their keys that move; ``leaving`` is its end.
"""

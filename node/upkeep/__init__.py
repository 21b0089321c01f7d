"""What a node does besides requests.

Read in this order: ``owner`` (the node, as seen here) and ``upkeep`` (the driver), ``log`` (how long entries
are kept), ``compaction`` and ``counting``, ``space`` (quota, alarms, disks), ``group`` (what hosts agree on),
``expiry`` with ``lease_reads``, ``lease_checks``, ``counters`` and ``facts``.
"""

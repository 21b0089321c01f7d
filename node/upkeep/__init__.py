"""What a node does besides requests.

Read in this order: ``owner`` (the node, as seen here) and ``upkeep`` (the driver), ``flushes``,
``truncation`` with ``floors`` (which records must be kept), ``snapshots`` with ``catching_up`` and
``transfers``, ``compaction`` and ``counting``, ``space`` (quota, alarms, disks), ``group`` (what hosts agree
on), ``expiry``, ``lease_checks``, ``counters`` and ``facts``.
"""

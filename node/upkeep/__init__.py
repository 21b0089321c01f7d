"""What a node does besides requests.

Read in this order: ``upkeep`` (the driver), ``disk`` (when what is synced), ``snapshots`` with
``catching_up``, ``expiry``, ``floors`` (which records must be kept), ``space`` with ``giving_back``,
``lease_checks``, ``counters`` and ``facts``.
"""

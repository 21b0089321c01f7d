"""How long a log keeps its entries, and what a replica gets that comes too late for them.

Read in this order: ``flushes`` (what is on disk), ``truncation`` with ``floors`` (which records must be
kept), ``snapshots`` with ``catching_up`` and ``transfers``.
"""

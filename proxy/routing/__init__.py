"""Every request's way to a node and back.

Read in this order: ``links`` (one connection to one node), ``routes`` (one shard's links), ``waiting`` (a
request on its way), ``sending``, ``router`` with ``overdue`` and ``slow``, ``rounds``, ``reads`` (how new
they are), ``pieces``, ``members``.
"""

"""HTTP as clients speak it to a front: bytes in, requests out.

Read in this order: ``http2`` (frames and streams), ``http1``, ``server`` (one port for both) with ``backlog`` and ``memory``,
``requests`` and ``http2_requests`` (what a handler sees), ``filter``, ``endpoints``.
"""

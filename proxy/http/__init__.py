"""HTTP as clients speak it to a front: bytes in, requests out.

Read in this order: ``http2`` (frames and streams), ``http1`` with ``http1_plain`` and ``by_h11``, ``backlog``
and ``memory`` (limits), ``requests`` and ``http2_requests`` (what a handler sees). ``proxy.listener`` puts
them behind a port.
"""

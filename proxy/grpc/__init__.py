"""gRPC over HTTP/2: calls, their handlers and their deadlines.

Read in this order: ``wire`` (pure), ``calls``, ``registry`` (who serves which path), ``deadlines``,
``timed_calls``, ``traced_calls``.
"""

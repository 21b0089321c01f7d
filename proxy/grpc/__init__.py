"""gRPC over HTTP/2: calls, their handlers and their deadlines.

Read in this order: ``wire`` (pure), ``calls``, ``kinds``, ``registry`` (handlers by path), ``deadlines``,
``timed_calls``, ``traced_calls``, ``held`` (requests of a stream that wait).
"""

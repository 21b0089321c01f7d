"""What views ask of a cluster, as plain asynchronous functions and data. No widget is known here.

``keys`` first; then ``hub`` (watches that browsers share), ``leases``, ``cluster`` and ``shards``. ``raw``
calls what the client library has no name for.
"""

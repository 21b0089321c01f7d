"""Charts of the last hour: ``figures`` reads a host's ``/metrics``, ``recorder`` keeps what was read.

``series`` makes lines of it; ``hot`` counts the keys that change.
"""

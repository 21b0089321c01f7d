"""What views ask of a cluster, as plain asynchronous functions and data. No widget is known here.

``tree`` lists keys, ``values`` shows them, ``edits`` changes them; ``history``, ``hub`` (watches shared by
browsers), ``leases`` and ``cluster`` are what their names say.
"""

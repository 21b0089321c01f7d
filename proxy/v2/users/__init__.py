"""Users of version 2: who asks, and ``/v2/auth``.

Read ``credentials`` (who a request says that it is from), ``bodies`` (what requests for ``/v2/auth`` carry)
and ``auth`` (what they ask for). Nodes judge (``cluster.features.v2``).
"""
